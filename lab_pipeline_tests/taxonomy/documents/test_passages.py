from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab_pipeline.core.rows import Passage
from lab_pipeline.taxonomy.documents.blocks import visible
from lab_pipeline.taxonomy.documents.passages import PassageBudget, estimated_tokens, passage_sentences, passages
from lab_pipeline.taxonomy.documents.reading import Document, read_document


def read(text: str, name: str = "guide.md") -> Document:
    return read_document(name, "c0ffee", text.encode(errors="replace"))


def cut(text: str, tokens: int = 180, name: str = "guide.md") -> list[Passage]:
    return passages(read(text, name), PassageBudget(tokens))


def words(count: int, name: str = "word") -> str:
    return " ".join(f"{name}{'abcdefghij'[number % 10]}" for number in range(count))


def test_paragraphs_under_one_heading_are_one_passage_with_the_headings_above():
    text = "# Top\n\nFirst *one*.\n\nSecond\n`two`.\n\n## Below\n\nThird.\n"
    first, second = cut(text)
    assert (first["heading"], first["text"], first["place"]) == ("Top", "First one.\n\nSecond two.", "lines 3 to 5")
    assert (second["heading"], second["text"], second["place"]) == ("Top > Below", "Third.", "line 10")
    assert (first["document"], first["commit"]) == ("guide.md", "c0ffee")


def test_a_heading_ends_the_headings_of_its_level_and_below():
    text = "# A\n\n## B\n\n### C\n\none\n\n## D\n\ntwo\n\nE\n=\n\nthree\n"
    assert [(passage["heading"], passage["text"]) for passage in cut(text)] == [
        ("A > B > C", "one"),
        ("A > D", "two"),
        ("E", "three"),
    ]


def test_a_heading_without_text_below_it_is_a_passage_of_its_own():
    assert [(each["heading"], each["text"]) for each in cut("# A\n\n## B\n\n## C\n\ntext\n\n# D\n")] == [
        ("A", "B"),
        ("A > C", "text"),
        ("", "D"),
    ]


def test_a_heading_as_long_as_a_page_is_text():
    assert [(each["heading"], each["text"]) for each in cut(f"# {words(60)}\n\ntext", tokens=100)] == [
        ("", f"{words(60)}\n\ntext")
    ]


def test_text_before_any_heading_has_none():
    assert [(passage["heading"], passage["text"]) for passage in cut("alone\n")] == [("", "alone")]


def test_items_and_rows_stand_on_lines_of_their_own():
    (passage,) = cut("- item one\n- item two\n\n> quoted\n\n| h1 | h2 |\n|----|----|\n| c1 | c2 |\n| d1 | d2 |\n")
    assert passage["text"] == "- item one\n- item two\n\nquoted\n\nh1: c1; h2: c2\nh1: d1; h2: d2"


def test_every_part_of_a_long_table_has_whole_rows_each_with_its_headers():
    table = "| Harbour | Keeper |\n|---|---|\n" + "".join(f"| H{number} | K{number} |\n" for number in range(100))
    found = cut(table)
    assert len(found) > 5
    lines = [line for passage in found for line in passage["text"].split("\n")]
    assert lines == [f"Harbour: H{number}; Keeper: K{number}" for number in range(100)]


def test_a_row_over_the_budget_is_cut_between_cells_so_that_each_keeps_its_header():
    cells = [words(8, name) for name in "abcd"]
    found = cut("| One | Two | Three | Four |\n|---|---|---|---|\n| " + " | ".join(cells) + " |\n", tokens=15)
    assert [each["text"].removesuffix(";") for each in found] == [
        f"{header}: {cell}" for header, cell in zip(["One", "Two", "Three", "Four"], cells, strict=True)
    ]


def test_code_stays_whole_where_it_fits():
    code = "\n".join(f"  step({number})" for number in range(20))
    assert code in [passage["text"] for passage in cut(f"{words(100)}\n\n```\n{code}\n```\n", tokens=180)]
    cut_code = cut(f"```\n{code}\n```\n", tokens=60)
    assert "\n".join(each["text"] for each in cut_code).split() == code.split()
    assert all(each["text"].endswith(")") for each in cut_code), "cut between lines"


def test_paragraphs_are_gathered_up_to_the_budget():
    text = "\n\n".join(words(20, name) for name in "abcd")
    assert [len(each["text"].split()) for each in cut(text, tokens=60)] == [60, 20]


def test_a_long_paragraph_is_cut_between_sentences():
    text = " ".join(f"Sentence {words(27, name)} ends." for name in "abcdefghi")
    found = cut(text, tokens=100)
    assert all(passage["text"].endswith("ends.") for passage in found)
    assert " ".join(passage["text"] for passage in found) == text


@pytest.mark.parametrize(
    "text", ["word " * 5000, "wort" * 5000, "港口在六点开放，" * 500, "บ้าน" * 1000, "گلاب" * 999, "a.b" * 3000, "7" * 9999]
)
@pytest.mark.parametrize("name", ["guide.md", "guide.txt"])
def test_no_passage_is_over_the_budget_in_any_script(text, name):
    document = read(text, name)
    found = passages(document, PassageBudget(100))
    assert max(estimated_tokens(each["text"]) for each in found) <= 100
    assert "".join("".join(each["text"].split()) for each in found) == visible(document.blocks)


@pytest.mark.parametrize("unit", ["(!", "![a](", "word", "Open at six. ", "港"])
def test_a_very_long_text_is_cut_in_time_by_its_length(unit):
    started = time.process_time()
    found = cut(unit * (400_000 // len(unit)), name="guide.txt")
    assert time.process_time() - started < 10
    assert max(estimated_tokens(each["text"]) for each in found) <= 180


def test_chinese_is_cut_between_sentences():
    found = cut("港口每天早上六点开放。伊尔莎保管三把钥匙。" * 50, tokens=100)
    assert len(found) > 5
    assert all(each["text"].endswith("。") for each in found)


def test_sentences_are_split_line_by_line_without_the_marks_of_items_and_in_the_leaf_s_language():
    (passage,) = cut("- Ilse keeps it. Odo helps.\n- Bram sleeps.\n\n1. First open the gate.\n\n| Gate |\n|---|\n| North. |\n")
    assert passage_sentences(passage, "English") == [
        "Ilse keeps it.",
        "Odo helps.",
        "Bram sleeps.",
        "First open the gate.",
        "Gate: North.",
    ]
    years = "Thalveren was founded in 1268. The bridge is of 834. - All of it stands."
    assert passage_sentences(cut(years)[0], "English")[:2] == ["Thalveren was founded in 1268.", "The bridge is of 834."]
    german = "Dr. med. Ilse kommt um 6 Uhr. Am 3. März öffnet der Hafen. Das gilt z. B. für Boote."
    assert len(passage_sentences(cut(german)[0], "German")) == 3


@pytest.mark.parametrize("stray", ["\f", "\v", "\x1c", "\x85", "\u2028", "\u2029"])
def test_a_character_that_is_no_line_break_in_markdown_moves_no_line(stray):
    assert cut(f"# A\n\none{stray}two{stray}\n\n# B\n\nthree\n")[-1]["place"] == "line 7"


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r"])
def test_lines_are_right_for_every_kind_of_line_break(line_break):
    text = line_break.join(["# A", "", "one", "two", "", "# B", "", "three"])
    assert [(each["text"], each["place"]) for each in cut(text)] == [("one two", "line 3"), ("three", "line 8")]


PLAIN = st.lists(st.text("abcdefgéß港แ", min_size=1, max_size=6), min_size=1, max_size=60).map(" ".join)
BLOCKS = st.one_of(
    PLAIN,
    PLAIN.map(lambda text: f"{text.capitalize()}. " * 4),
    PLAIN.map(lambda text: f"# {text}"),
    PLAIN.map(lambda text: f"### {text[:20]}"),
    PLAIN.map(lambda text: f"- {text}\n- {text}\n  1. {text}"),
    PLAIN.map(lambda text: f"> {text}\n{text}"),
    PLAIN.map(lambda text: f"| {text} | b |\n|---|---|\n| c | {text} |"),
    PLAIN.map(lambda text: f"```\n{text}\n```"),
    PLAIN.map(lambda text: f"<div>{text}<br>{text}</div>"),
    PLAIN.map(lambda text: f"Said [^1] {text}.\n\n[^1]: {text}"),
    PLAIN.map(lambda text: text.replace(" ", "")),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(BLOCKS, max_size=8), st.integers(30, 200), st.sampled_from(["guide.md", "guide.txt"]))
def test_passages_hold_all_text_within_the_budget_and_their_spans_point_back(parts, tokens, name):
    document = read("\n\n".join(parts), name)
    found = passages(document, PassageBudget(tokens))
    assert all(estimated_tokens(passage["text"]) <= tokens for passage in found)
    assert all(passage["text"] == document.text[passage["start"] : passage["end"]] for passage in found)
    assert all(one["end"] <= other["start"] for one, other in pairwise(found))
    shown = "".join("".join(f"{passage['heading']}{passage['text']}".split()) for passage in found)
    assert set(visible(document.blocks)) <= set(shown)
    headings = "".join(visible([block]) for block in document.blocks if block.kind == "heading")
    texts = sum(len("".join(passage["text"].split())) for passage in found)
    assert len(visible(document.blocks)) - len(headings) <= texts <= len(visible(document.blocks))


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200) | st.text(st.sampled_from("#*_`[]()<>!|-+\\&;\n\t >1.a^:"), max_size=80))
def test_any_text_can_be_cut(text):
    for passage in cut(text.replace("\0", "")):
        assert passage["text"].strip("\n") == passage["text"] and passage["text"].strip()
        assert passage["start"] < passage["end"]


def test_the_estimate_is_seldom_lower_than_a_real_tokenizer_counts(tiny_model):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
    for text in ("The harbour opens at six, and Ilse keeps three keys of it.", "x = harbour(3, gate='north')\n", "1,204.5 m²"):
        assert estimated_tokens(text) >= 0.8 * len(tokenizer.encode(text).ids)
