from __future__ import annotations

import random
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab_pipeline.taxonomy.documents.blocks import Block, DocumentError, LeftOut, Reading
from lab_pipeline.taxonomy.documents.markdown import read as read_bytes
from lab_pipeline_tests.taxonomy.documents.damage import COUNTS, read_or_refused, spliced


def read(text: str) -> Reading:
    return read_bytes(text.encode())


def found(text: str) -> list[tuple[str, int, str]]:
    """Kind, line and text of each block."""
    return [(block.kind, block.line, block.text) for block in read(text).blocks]


def test_headings_paragraphs_and_links_are_their_text():
    text = (
        "# Top *one*\n\nSee [the *old* page](https://example.org)\n"
        "and <https://x.org>, `a<b` and ~~not~~ 5\\*3 &amp; more.\n\nBelow\n---\n"
    )
    assert list(read(text).blocks) == [
        Block("heading", "Top one", 1, 1),
        Block("text", "See the old page and https://x.org, a<b and not 5*3 & more.", line=3),
        Block("heading", "Below", 2, 6),
    ]


def test_lists_keep_their_marks_and_levels():
    blocks = read("- one\n- two\n  1. deep\n  2. deeper\n\n1. loose\n\n   more\n").blocks
    assert [(block.level, block.text) for block in blocks] == [
        (1, "- one"),
        (1, "- two"),
        (2, "1. deep"),
        (2, "2. deeper"),
        (1, "1. loose"),
        (1, "more"),
    ]


def test_code_keeps_its_lines():
    assert found("```bash\nif a:\n    b <c>\n\nd\n```\n\n    in dented\n      code\n") == [
        ("code", 2, "if a:\n    b <c>\n\nd"),
        ("code", 8, "in dented\n  code"),
    ]


def test_html_in_markdown_is_read_and_comments_are_not():
    text = (
        "<details><summary>Who?</summary>\n\nIlse **keeps** it.\n\n</details>\n"
        "<div>\nAt six.\n</div>\n\nDeep<br>wet <!-- no -->\n"
    )
    assert found(text) == [
        ("text", 1, "Who?"),
        ("text", 3, "Ilse keeps it."),
        ("text", 7, "At six."),
        ("text", 10, "Deep wet"),
    ]


def test_what_only_looks_like_a_tag_is_text():
    assert found("Open <hostname> of <b>all</b>.\n\n<gate>\nopens\n") == [
        ("text", 1, "Open <hostname> of all."),
        ("text", 3, "<gate> opens"),
    ]


def test_tables_name_the_header_of_each_cell():
    assert found("| Harbour | Keeper |\n|---|---|\n| North | Ilse |\n| South | |\n") == [
        ("row", 3, "Harbour: North; Keeper: Ilse"),
        ("row", 4, "Harbour: South"),
    ]
    assert found('<table><tr><th colspan="2">North</th></tr><tr><td>Keeper</td><td>Ilse</td></tr></table>') == [
        ("row", 1, "North: Keeper; North: Ilse")
    ]


def test_a_footnote_stands_behind_the_block_that_refers_to_it_first():
    text = "- one[^a]\n- two\n\nMore[^b] and again[^a].\n\n[^b]: Bee.\n\n    Second.\n[^a]: Ay.\n[^c]: Unused.\n\nEnd[^d].\n"
    assert [each for _, _, each in found(text)] == [
        "- one",
        "- two",
        "Ay.",
        "More and again.",
        "Bee.",
        "Second.",
        "Unused.",
        "End[^d].",
    ]


def test_many_footnotes_take_time_by_their_number():
    text = "".join(f"Said[^{number}].\n\n[^{number}]: Note.\n\n" for number in range(5_000))
    started = time.monotonic()
    assert len(read(text).blocks) == 10_000
    assert time.monotonic() - started < 8


def test_front_matter_is_left_out_and_said_and_lines_below_keep_their_numbers():
    reading = read("---\ntitle: Guide\nreviewer: Odo\n---\n\n# Keys\n")
    assert list(reading.blocks) == [Block("heading", "Keys", 1, 6)]
    assert list(reading.left_out) == [LeftOut("front matter", characters=29)]


@pytest.mark.parametrize(
    "front",
    [
        "---\ntitle: Guide: the gate\n---\n",
        "---\n# set by hand\ntitle: {{ name }}\n\ntags:\n- a\n- b\n...\n",
        '+++\ntitle = "Guide"\n[menu]\nweight = 1\n+++\n',
        f"---\na: {'[' * 5000}\n---\n",
    ],
)
def test_front_matter_need_not_be_valid_and_may_be_toml(front):
    reading = read(f"{front}\n# Keys\n")
    assert [block.text for block in reading.blocks] == ["Keys"]
    assert [each.what for each in reading.left_out] == ["front matter"]


def test_formulas_keep_their_signs_and_prices_are_none():
    assert found("Sum $x*y*z$ and $\\{a\\}_{1}$ or $$a\\\\b$$, *not* $5 and **six** $6.\n\n$$\na*b*c\n$$\n") == [
        ("text", 1, "Sum $x*y*z$ and $\\{a\\}_{1}$ or $$a\\\\b$$, not $5 and six $6."),
        ("text", 3, "$$ a*b*c $$"),
    ]


def test_admonitions_are_their_title_and_their_blocks():
    text = '!!! warning "Keep *out*"\n    Bea is **in**.\n\n    - one\n\n??? tip\n\n    Knock.\n\n!!! Never shout\nAfter.\n'
    assert found(text) == [
        ("text", 1, "warning: Keep out"),
        ("text", 2, "Bea is in."),
        ("item", 4, "- one"),
        ("text", 6, "Tip"),
        ("text", 8, "Knock."),
        ("text", 10, "never: shout"),
        ("text", 11, "After."),
    ]


def test_cells_beyond_the_columns_of_a_table_stay():
    text = "> | A | B |\n> |---|---|\n> | 1 | 2 | 3 | 4 |\n\n| A |\n|---|\n| `x|y` |\n"
    assert found(text) == [("row", 3, "A: 1; B: 2; 3; 4"), ("row", 7, "A: `x; y`")]


@pytest.mark.parametrize("name", ["title", "style", "script", "textarea", "iframe", "svg", "select", "nav", "Video"])
def test_a_tag_in_a_sentence_that_nothing_closes_hides_nothing(name):
    assert found(f"Use <{name}> here.\n\nMore.\n") == [("text", 1, f"Use <{name}> here."), ("text", 3, "More.")]
    assert found(f"A <{name}>b</{name}> c.\n")[0][2].startswith("A")


def test_asides_headers_and_footers_in_markdown_are_content():
    reading = read("<header>Top</header>\n\n<aside>\nKnock *twice*.\n</aside>\n\nText.\n\n<footer>End</footer>\n")
    assert [block.text for block in reading.blocks] == ["Top", "Knock *twice*.", "Text.", "End"]
    assert not reading.left_out


@pytest.mark.parametrize("text", ["---\n\nOne.\n\n---\n\nTwo.", "---\nOne [\n---\nTwo.", "One.\n\n---\na: b\n---\n"])
def test_what_is_no_front_matter_stays(text):
    assert re.findall(r"One|Two", " ".join(block.text for block in read(text).blocks)) == re.findall(r"One|Two", text)
    assert not read(text).left_out


def test_a_picture_is_its_alternative_text_and_one_without_is_counted():
    reading = read("A ![The *north* harbour](x.png) and ![](y.png).")
    assert [block.text for block in reading.blocks] == ["A [The north harbour] and ."]
    assert [each.what for each in reading.left_out] in ([], ["1 picture without alternative text"])


def test_nesting_beyond_the_bound_is_refused_not_dropped():
    with pytest.raises(DocumentError, match="nested deeper"):
        read("> " * 200 + "deep")


WORDS = st.text("abcdefgé港", min_size=1, max_size=5)
INLINE = st.one_of(
    WORDS,
    WORDS.map(lambda word: f"*{word}*"),
    WORDS.map(lambda word: f"**{word}**"),
    WORDS.map(lambda word: f"`{word}`"),
    WORDS.map(lambda word: f"[{word}](http://x.org)"),
    WORDS.map(lambda word: f"<b>{word}</b>"),
    WORDS.map(lambda word: f"<{word}x1>"),
    WORDS.map(lambda word: f"![{word}](x.png)"),
    WORDS.map(lambda word: f"{word}  \n{word}"),
)
LINE = st.lists(INLINE, min_size=1, max_size=8).map(" ".join)
SIMPLE = LINE.filter(lambda line: "\n" not in line)
PARTS = st.one_of(
    LINE,
    SIMPLE.map(lambda line: f"# {line}"),
    SIMPLE.map(lambda line: f"- {line}\n- {line}\n\n  {line}\n  1) {line}"),
    SIMPLE.map(lambda line: f"> {line}\n>> {line}"),
    SIMPLE.map(lambda line: f"| {line} | b |\n|---|---|\n| c | {line} |"),
    WORDS.map(lambda word: f"```\n{word} {word}\n```"),
    WORDS.map(lambda word: f"    {word} {word}"),
    SIMPLE.map(lambda line: f"<div>{line}</div>"),
    SIMPLE.map(lambda line: f"Said[^1] {line}\n\n[^1]: {line}"),
    WORDS.map(lambda word: f"<table><tr><td>{word}<td>{word}x</table>"),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(PARTS, max_size=6))
def test_every_word_stands_in_a_block_or_is_said_to_be_left_out(parts):
    text = "\n\n".join(parts)
    reading = read(text)
    shown = "".join(block.text for block in reading.blocks)
    source = re.sub(r"\]\([^)]*\)|</?(?:b|div|table|tr|td)>", " ", text)
    missing = [word for word in re.findall(r"[abcdefgé港]+", source) if word not in shown]
    assert not missing or reading.left_out


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from("#*_`[]()<>!|-+\\&;\n\t >1.a^:~=/\"'"), max_size=120))
def test_any_text_is_read_with_lines_that_it_has(text):
    assert all(1 <= block.line <= text.count("\n") + 1 for block in read(text).blocks)


SEED = b"""---
a: b
---
# Top *one* [x]: <gate> &amp;

- one[^a]
  1. two `c`

     > quoted
* * *
| a | b |
|---|:-:|
| *c* | d\\| |

```py
x
```
<details><summary>s</summary>

![alt](x.png) <https://x.org> [l](u "t")

</details>

[^a]: note
"""


PIECES = [
    *(b"", b"\n", b"    ", b"> ", b"- ", b"```", b"[^a]", b"<", b"|", b"---\n", b"![", b"`", b"\0"),
    *(b"*" * 30, b"[" * 30),
]


@COUNTS
def test_damaged_files_are_read_or_refused(count):
    chance = random.Random(count)
    read_or_refused(read_bytes, (spliced(SEED, chance, PIECES) for _ in range(count)))
