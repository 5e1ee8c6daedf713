from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_pipeline.taxonomy.documents.blocks import DocumentError, visible
from lab_pipeline.taxonomy.documents.plain import read
from lab_pipeline_tests.taxonomy.documents.damage import COUNTS, read_or_refused


def texts(text: str) -> list[tuple[int, str]]:
    return [(block.line, block.text) for block in read(text.encode()).blocks]


def test_nothing_is_markup():
    lines = "The rate is 2*3*4 = 24, and <gate> opens if a<b and c>d.\n# of berths: 7\n-----\nsnake_case and *star* stay."
    assert texts(f"Guide\n=====\n\n    Opens at six.\n\n1986. A year.\n\n{lines}\n") == [
        (1, "Guide\n====="),
        (4, "Opens at six."),
        (6, "1986. A year."),
        (8, lines),
    ]


def test_lines_that_were_wrapped_by_width_are_joined_and_others_stay():
    wrapped = "The harbour opens at six in the\nmorning, and Ilse keeps three\nkeys of it."
    assert texts(wrapped) == [(1, "The harbour opens at six in the morning, and Ilse keeps three keys of it.")]
    assert texts("Ilse Brun\nHarbour 3\nThalveren") == [(1, "Ilse Brun\nHarbour 3\nThalveren")]
    assert texts("Bring to the harbour office:\n- three keys\n- a lamp") == [
        (1, "Bring to the harbour office:\n- three keys\n- a lamp")
    ]


@pytest.mark.parametrize(
    "lines",
    [
        ["Harbour            Keeper             Keys and the number of boats", "North              Ilse               3"],
        ["Harbour\tKeeper", "North\tIlse"],
        ["name,keeper,keys,number of boats in it,number of berths at all", "North,Ilse,3,4,5"],
        ["Name: North", "Keeper: Ilse"],
        ["The sea is wide,", "The sea is deep,", "  And all the harbour", "Sounds asleep."],
        ["Ilse Brun, master of the harbour", "Harbour street 3", "4711 Thalveren"],
    ],
)
def test_lines_of_tables_addresses_and_poems_stay_lines(lines):
    assert texts("\n".join(lines)) == [(1, "\n".join(" ".join(line.split()) for line in lines))]


@pytest.mark.parametrize(
    "text",
    [
        "   The harbour opens at six in the morning on all days of\n   the year, and closes at nine.",
        "   The harbour opens at six in the morning on all days of\nthe year, and closes at nine.",
        "1. The harbour opens at six in the morning on all days of\n   the year, and closes at nine.",
        "- The harbour opens at six in the morning on all days of\nThalveren's year, and closes at nine.",
    ],
)
def test_wrapped_lines_are_joined_whatever_their_indentation(text):
    assert texts(text) == [(1, " ".join(text.split()))]


def test_chinese_is_joined_without_a_blank():
    line = "港口每天早上六点开放而伊尔莎保管着北门和南门的三把钥匙直到晚上"
    assert texts(f"{line}\n{line}") == [(1, line * 2)]


def test_utf_16_and_a_byte_order_mark_are_read():
    assert read("\ufeffÖl".encode()).blocks[0].text == "Öl"
    assert read("Öl".encode("utf-16")).blocks[0].text == "Öl"


@pytest.mark.parametrize(
    ("raw", "line", "said"), [(b"one\ncaf\xe9", 2, "not UTF-8 text"), (b"one\n\ntwo\0", 3, "contains a NUL")]
)
def test_bytes_that_are_no_text_are_refused_at_their_line(raw, line, said):
    with pytest.raises(DocumentError, match=said) as refused:
        read(raw)
    assert refused.value.line == line


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_every_character_stays(text):
    text = text.removeprefix("\ufeff")
    assert visible(read(text.encode()).blocks) == "".join(text.split())


@COUNTS
def test_damaged_files_are_read_or_refused(count):
    chance = random.Random(count)
    pieces = [b"\n", b"  ", b"- ", b"a" * 70, b"\r", b"\xff\xfe", b"\xef\xbb\xbf", "\u2028é港".encode(), b"1) ", b"\0", b"\xc3"]
    likely = [9, 9, 9, 9, 9, 1, 1, 9, 9, 0.1, 0.1]
    read_or_refused(read, (b"".join(chance.choices(pieces, likely, k=chance.randint(0, 60))) for _ in range(count)))
