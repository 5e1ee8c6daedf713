from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab_pipeline.core.rows import Passage
from lab_pipeline.taxonomy.documents.passages import PASSAGE_WORDS, passages
from lab_pipeline.taxonomy.documents.repository import Document
from lab_pipeline.text.sentences import sentences


def cut(text: str) -> list[Passage]:
    return passages(Document("guide.md", "c0ffee", text))


def words(count: int, name: str = "word") -> str:
    return " ".join(f"{name}{number}" for number in range(count))


def test_paragraphs_under_one_heading_are_one_passage_with_the_headings_above():
    text = "# Top\n\nFirst *one*.\n\nSecond\n`two`.\n\n## Below\n\nThird.\n"
    first, second = cut(text)
    assert (first["heading"], first["text"]) == ("Top", "First one. Second two.")
    assert (second["heading"], second["text"]) == ("Top > Below", "Third.")
    assert text[first["start"] : first["end"]] == "First *one*.\n\nSecond\n`two`.\n"
    assert text[second["start"] : second["end"]] == "Third.\n"
    assert (first["document"], first["commit"]) == ("guide.md", "c0ffee")


def test_a_heading_ends_the_headings_of_its_level_and_below():
    text = "# A\n\n## B\n\n### C\n\none\n\n## D\n\ntwo\n\nE\n=\n\nthree\n"
    assert [(passage["heading"], passage["text"]) for passage in cut(text)] == [
        ("A > B > C", "one"),
        ("A > D", "two"),
        ("E", "three"),
    ]


def test_text_before_any_heading_has_none():
    assert [(passage["heading"], passage["text"]) for passage in cut("alone\n")] == [("", "alone")]


@pytest.mark.parametrize("text", ["", "\n\n", "# Only\n\n## Headings\n", "![picture](x.png)\n"])
def test_a_document_without_a_paragraph_has_no_passage(text):
    assert cut(text) == []


def test_lists_quotes_and_tables_are_read_and_their_lines_known():
    text = "- item one\n- item two\n\n> quoted\n\n| h1 | h2 |\n|----|----|\n| c1 | c2 |\n"
    (passage,) = cut(text)
    assert passage["text"] == "item one item two quoted h1 h2 c1 c2"
    assert text[passage["start"] : passage["end"]] == text


def test_a_link_is_its_text():
    assert cut("See [the *old* page](https://example.org) and <https://x.org>.")[0]["text"] == (
        "See the old page and https://x.org."
    )


def test_paragraphs_are_gathered_up_to_the_length_of_a_passage():
    text = "\n\n".join(words(PASSAGE_WORDS // 3, name) for name in "abcd")
    assert [len(passage["text"].split()) for passage in cut(text)] == [PASSAGE_WORDS, PASSAGE_WORDS // 3]


def test_a_long_paragraph_is_split_between_sentences_and_no_word_is_lost():
    text = " ".join(f"Sentence {words(27, name)} ends." for name in "abcdefghi")
    found = cut(text)
    assert [len(passage["text"].split()) for passage in found] == [116, 116, 29]
    assert all(passage["text"].endswith("ends.") for passage in found)
    assert " ".join(passage["text"] for passage in found) == text
    assert {(passage["start"], passage["end"]) for passage in found} == {(0, len(text))}


def test_a_sentence_longer_than_a_passage_stays_whole():
    long = words(PASSAGE_WORDS + 30).capitalize() + "."
    assert [passage["text"] for passage in cut(f"Short one. {long} Short two.")] == ["Short one.", long, "Short two."]


@pytest.mark.parametrize("stray", ["\f", "\v", "\x1c", "\x85", "\u2028", "\u2029"])
def test_a_character_that_is_no_line_break_in_markdown_moves_no_span(stray):
    text = f"# A\n\none{stray}two{stray}\n\n# B\n\nthree\n"
    found = cut(text)
    assert text[found[-1]["start"] : found[-1]["end"]] == "three\n"


def test_spans_are_right_for_every_kind_of_line_break():
    for line_break in ("\n", "\r\n", "\r"):
        text = line_break.join(["# A", "", "one", "two", "", "# B", "", "three"])
        found = cut(text)
        assert [text[passage["start"] : passage["end"]].split() for passage in found] == [["one", "two"], ["three"]]


plain = st.lists(st.text("abcdefg", min_size=1, max_size=6), min_size=1, max_size=60).map(" ".join)
blocks = st.one_of(
    plain,
    plain.map(lambda text: f"{text.capitalize()}. " * 4),
    plain.map(lambda text: f"# {text[:20]}"),
    plain.map(lambda text: f"### {text[:20]}"),
    plain.map(lambda text: f"- {text}\n- {text}"),
    plain.map(lambda text: f"> {text}\n{text}"),
    plain.map(lambda text: f"{text}\f{text}\u2028{text}"),
    plain.map(lambda text: f"| {text} | b |\n|---|---|\n| c | {text} |"),
    plain.map(lambda text: f"```\n{text}\n```"),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(blocks, max_size=8), st.sampled_from(["\n", "\r\n", "\r"]), st.sampled_from(["", "\n"]))
def test_a_passages_span_holds_its_words_in_order_and_is_whole_lines(parts, line_break, last):
    text = ("\n\n".join(parts) + last).replace("\n", line_break)
    for passage in cut(text):
        span = text[passage["start"] : passage["end"]]
        rest = iter(span.replace("|", " ").split())
        assert all(word in rest for word in passage["text"].split())
        assert passage["start"] == 0 or text[passage["start"] - 1] in "\r\n"
        assert passage["end"] == len(text) or text[passage["end"] - 1] in "\r\n"


@settings(max_examples=150, deadline=None)
@given(st.lists(blocks, max_size=8))
def test_passages_hold_every_word_of_the_paragraphs_once_and_stay_short(parts):
    paragraphs = [part for part in parts if part[0] not in "#>-|`"]
    found = cut("\n\n".join(paragraphs))
    assert " ".join(passage["text"] for passage in found).split() == " ".join(paragraphs).split()
    longest = max((len(sentence.split()) for part in paragraphs for sentence in sentences(part)), default=0)
    assert all(len(passage["text"].split()) <= max(PASSAGE_WORDS, longest) for passage in found)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200) | st.text(st.sampled_from("#*_`[]()<>!|-+\\&;\n\t >1.a\0"), max_size=80))
def test_any_text_can_be_cut(text):
    for passage in cut(text):
        assert 0 <= passage["start"] < passage["end"] <= len(text)
        assert passage["text"] == " ".join(passage["text"].split()) != ""
