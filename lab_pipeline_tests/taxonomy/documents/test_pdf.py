import random
import re
import shutil
import subprocess
import zlib

import pytest

from lab_pipeline.taxonomy.documents import pdf as reader
from lab_pipeline.taxonomy.documents.blocks import DocumentError, LeftOut
from lab_pipeline.taxonomy.documents.pdf import read
from lab_pipeline.taxonomy.documents.pdf_text import Character, segment_of
from lab_pipeline_tests.taxonomy.documents.damage import COUNTS, read_or_refused
from lab_pipeline_tests.taxonomy.documents.pdf_files import PICTURE, Words, made_stream, pdf, written


def lines(*texts: str, x: float = 50, y: float = 700, pitch: float = 12, **style) -> list[Words]:
    """Lines below each other."""
    return [Words(x, y - pitch * number, text, **style) for number, text in enumerate(texts)]


def blocks(*pages) -> list[tuple[str, str, int, str]]:
    return [(block.kind, block.text, block.level, block.place) for block in read(pdf(*pages)).blocks]


def texts(*pages) -> list[str]:
    return [block.text for block in read(pdf(*pages)).blocks]


BODY = lines("The keepers of the lamp lived on the rock for months at a", "time, and a boat brought them oil and bread.")
BODY_TEXT = "The keepers of the lamp lived on the rock for months at a time, and a boat brought them oil and bread."


def test_lines_become_paragraphs_by_their_distance():
    second = lines("The rock is small.", y=670)
    assert blocks(BODY + second) == [("text", BODY_TEXT, 0, "page 1"), ("text", "The rock is small.", 0, "page 1")]


def test_lines_far_apart_are_paragraphs_even_where_all_are():
    assert texts(lines("The keepers of", "the lamp.", pitch=40)) == ["The keepers of", "the lamp."]


def test_double_spaced_lines_are_one_paragraph():
    assert texts(lines("The keepers of", "the lamp.", pitch=23)) == ["The keepers of the lamp."]


def test_an_indented_line_after_a_sentence_begins_a_paragraph():
    assert texts(BODY + lines("The rock is small.", x=65, y=676)) == [BODY_TEXT, "The rock is small."]


def test_a_sentence_that_ends_a_short_line_ends_the_paragraph():
    assert texts([*BODY, *lines("They ate.", y=676), *lines("Bread was all.", y=664)]) == [
        f"{BODY_TEXT} They ate.",
        "Bread was all.",
    ]


def test_an_indented_line_within_a_sentence_does_not():
    hanging = [Words(50, 700, "Smith, A., The keepers of the lamp and their families"), Words(65, 688, "on the rock, 1901.")]
    assert texts(hanging) == ["Smith, A., The keepers of the lamp and their families on the rock, 1901."]


def test_larger_and_bold_lines_are_headings_by_size():
    page = [
        Words(50, 800, "The lamps of the", size=20),
        Words(50, 776, "northern coast", size=20),
        Words(50, 745, "Oil", size=14),
        Words(50, 720, "Whale oil", bold=True),
        *BODY,
        Words(50, 660, "Gas", size=14),
        Words(50, 640, "Note:", bold=True),
    ]
    assert [(kind, text, level) for kind, text, level, _ in blocks(page)] == [
        ("heading", "The lamps of the northern coast", 1),
        ("heading", "Oil", 2),
        ("heading", "Whale oil", 3),
        ("text", BODY_TEXT, 0),
        ("heading", "Gas", 2),
        ("text", "Note:", 0),
    ]


def test_levels_of_headings_end_at_six():
    page = [Words(50, 800 - 30 * number, f"Part {'abcdefgh'[number]}", size=28 - 2 * number) for number in range(8)]
    levels = [block.level for block in read(pdf([*page, *lines(*[text.text for text in BODY] * 3, y=500)])).blocks]
    assert levels == [1, 2, 3, 4, 5, 6, 6, 6, 0]


def test_sizes_count_with_the_scale_of_the_text():
    assert blocks([Words(50, 740, "Oil", size=1, matrix="20 0 0 20"), *BODY])[0] == ("heading", "Oil", 1, "page 1")


def test_tiny_text_is_read():
    assert texts(lines("The keepers of", "the lamp.", size=0.1)) == ["The keepers of", "the lamp."]


def test_text_in_bold_throughout_has_no_bold_headings():
    assert {kind for kind, *_ in blocks([Words(50, 740, "Oil", bold=True), *lines(BODY[0].text, bold=True)])} == {"text"}


LEFT = [
    "The first column tells of the lamps",
    "that burned whale oil and smoked,",
    "which is why they were cleaned",
    "every night.",
]
RIGHT = [
    "The second one tells of gas lamps,",
    "which were brighter and needed",
    "fewer hands on the rock than the",
    "old ones.",
]


@pytest.mark.parametrize("by_rows", [False, True])
def test_columns_are_read_from_left_to_right_after_what_stands_across(by_rows):
    left, right = lines(*LEFT), lines(*RIGHT, x=300)
    drawn = [words for pair in zip(left, right, strict=True) for words in pair] if by_rows else left + right
    heading = Words(50, 740, "Lamps of two kinds, as they stood on the rock for years", size=16)
    across = lines("A line below both columns, which goes from one margin to the other one of this page.", y=630)
    assert texts([*drawn, *across, heading]) == [heading.text, " ".join(LEFT), " ".join(RIGHT), across[0].text]


def test_three_columns():
    assert texts(lines(*LEFT, x=30) + lines(*RIGHT, x=210) + lines(*LEFT, x=390)) == [
        " ".join(LEFT),
        " ".join(RIGHT),
        " ".join(LEFT),
    ]


def test_a_paragraph_goes_on_in_the_next_column():
    assert texts(lines(*LEFT[:3]) + lines("by the keepers on the rock", *RIGHT[1:], x=300)) == [
        " ".join([*LEFT[:3], "by the keepers on the rock", *RIGHT[1:]])
    ]


def test_a_paragraph_goes_on_in_the_next_column_after_a_footnote():
    note = Words(50, 640, "1 Since the year 1850, at least.", size=7)
    left, right = [*lines(*LEFT[:3]), note], lines("by the keepers on the rock", *RIGHT[1:], x=300)
    assert texts(left + right) == [" ".join([*LEFT[:3], "by the keepers on the rock", *RIGHT[1:]]), note.text]


def test_lists_beside_each_other_are_columns():
    left, right = ("Oil", "Wick"), ("Rope", "Boat")
    page = lines(*(f"\u2022 {each}" for each in left)) + lines(*(f"\u2022 {each}" for each in right), x=300)
    assert blocks(page) == [("item", f"- {each}", 1, "page 1") for each in left + right]


def test_the_title_of_a_slide_does_not_go_on_on_the_next_slide():
    pages = [[Words(50, 760, title, size=30), *BODY] for title in ("The keepers", "The lamps")]
    assert texts(*pages) == ["The keepers", BODY_TEXT, "The lamps", BODY_TEXT]


def test_tables_are_read_by_rows():
    rows = [["Harbour", "Keeper"], ["North", "Ilse"], ["South", "Ove"], ["West", "Ane"]]
    cells = [Words(50 + 150 * column, 600 - 12 * line, rows[line][column]) for column in range(2) for line in range(4)]
    assert texts(BODY + cells) == [BODY_TEXT, "Harbour Keeper", "North Ilse", "South Ove", "West Ane"]


def test_hyphens_at_the_end_of_a_line_go_if_the_joined_word_occurs():
    page = lines("A lighthouse is a well-", "known sight, and the light-", "house keeper knows Ein-", "und Ausgang.", "")
    assert texts(page) == ["A lighthouse is a well-known sight, and the lighthouse keeper knows Ein- und Ausgang."]


def test_a_paragraph_goes_on_over_the_page():
    first = lines(
        "The keepers of the lamp lived on the rock for months and",
        "all of them had learned how to light the lamp of the light-",
    )
    note = lines("A note in small print.", y=60, size=7)
    second = lines("house without a match.", "The rock is a lighthouse.")
    assert blocks(first + note, second) == [
        (
            "text",
            "The keepers of the lamp lived on the rock for months and all of them had learned how to light the lamp of the "
            "lighthouse without a match. The rock is a lighthouse.",
            0,
            "page 1",
        ),
        ("text", "A note in small print.", 0, "page 1"),
    ]


def test_a_finished_paragraph_does_not():
    assert [place for *_, place in blocks(BODY, lines("The rock is small."))] == ["page 1", "page 2"]


def test_running_headers_and_page_numbers_are_out():
    pages = [
        [
            Words(50, 810, "Lamps of the coast" if number % 2 else "Chapter one"),
            *lines(f"Page {'abcde'[number]} has its own text."),
            Words(300, 30, f"{number + 1} of 5"),
        ]
        for number in range(5)
    ]
    reading = read(pdf(*pages))
    assert [block.text for block in reading.blocks] == [f"Page {letter} has its own text." for letter in "abcde"]
    assert reading.left_out == [LeftOut("headers, footers and numbers of pages", characters=3 * 10 + 2 * 15 + 5 * 4)]


def test_two_pages_have_no_running_headers():
    page = [Words(50, 810, "Lamps of the coast"), *BODY]
    assert len(blocks(page, page)) == 4


def test_lists_have_items_with_levels():
    page = [
        *lines("Before a list:"),
        Words(60, 685, "\u2022"),
        Words(72, 685, "oil, which the keepers carried up the stairs of"),
        Words(72, 673, "the tower"),
        Words(80, 661, "\u2022 whale oil"),
        Words(60, 649, "\u2022 gas"),
        *lines("1. Light it.", "2) Watch it.", "(c) Sleep.", "[4] Smith.", "\u2013 Or not.", y=620),
    ]
    assert [(kind, text, level) for kind, text, level, _ in blocks(page)] == [
        ("text", "Before a list:", 0),
        ("item", "- oil, which the keepers carried up the stairs of the tower", 1),
        ("item", "- whale oil", 2),
        ("item", "- gas", 1),
        ("item", "1. Light it.", 1),
        ("item", "2) Watch it.", 1),
        ("item", "(c) Sleep.", 1),
        ("item", "[4] Smith.", 1),
        ("item", "- Or not.", 1),
    ]


def test_drawn_bullets_count_as_written_ones():
    squares = "52 701 4 4 re f 52 689 4 4 re f"
    assert blocks([squares, *lines("oil", "gas", x=64), *lines("The rock.", y=650)]) == [
        ("item", "- oil", 1, "page 1"),
        ("item", "- gas", 1, "page 1"),
        ("text", "The rock.", 0, "page 1"),
    ]


def test_a_number_within_a_sentence_begins_no_item():
    page = lines("Das Feuer wurde auf dem Felsen angezündet am", "12. Mai des Jahres 1850.")
    assert texts(page) == ["Das Feuer wurde auf dem Felsen angezündet am 12. Mai des Jahres 1850."]


def test_exponents_stay_and_belong_to_their_line():
    page = [Words(50, 700, "It has 20 m\u00b2, and n"), Words(133.4, 704, "2", size=6), Words(139.5, 700, "lamps.")]
    assert texts(page) == ["It has 20 m\u00b2, and n\u00b2 lamps."]


def test_halves_of_an_emoji_are_joined():
    halves = [Character(half, (0, 0, 9, 9), 10, False, 0) for half in "\ud83d\ude00"]
    assert segment_of(halves).text == "\U0001f600"
    assert segment_of(halves[:1]).text == ""


def test_ligatures_are_spelled_out():
    segment = segment_of([Character("\ufb03\u00b2", (0, 0, 9, 9), 10, False, 0)])
    assert segment.text == "ffi\u00b2"


def typed(codes: bytes, font: str, *objects: bytes) -> str:
    """Return the text of codes in a font, which may name the objects as 5, 6, ..."""
    return (
        read(
            written(
                [
                    b"<< /Type /Catalog /Pages 2 0 R >>",
                    b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
                    f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources "
                    f"<< /Font << /F0 << /Type /Font {font} >> >> >> >>".encode(),
                    made_stream(f"BT /F0 10 Tf 50 700 Td <{codes.hex()}> Tj ET".encode()),
                    *objects,
                ]
            )
        )
        .blocks[0]
        .text
    )


def test_letters_of_tex_fonts_made_of_dots_are_known_by_their_codes():
    codes = b"o\x1ecer\xff"
    names = " ".join(f"{code} /a{code}" for code in codes)
    drawn = " ".join(f"/a{code} 5 0 R" for code in codes)
    font = (
        f"/Subtype /Type3 /FontBBox [0 0 10 10] /FontMatrix [0.1 0 0 0.1 0 0] /FirstChar 0 /LastChar 255 "
        f"/Widths [{'5 ' * 256}] /Encoding << /Type /Encoding /Differences [{names}] >> /CharProcs << {drawn} >>"
    )
    assert typed(codes, font, made_stream(b"5 0 0 0 5 5 d1 0 0 5 5 re f")) == "officer\u00df"


def test_bullets_of_symbol_fonts_are_bullets():
    names = made_stream(b"1 begincodespacerange <00> <ff> endcodespacerange 1 beginbfchar <b7> <f0b7> endbfchar")
    assert typed(b"\xb7 oil", "/Subtype /Type1 /BaseFont /Helvetica /ToUnicode 5 0 R", names) == "- oil"


def test_an_accent_that_is_drawn_over_a_letter_belongs_to_it():
    drawn = [("G", 0), ("\u00a8", 10), ("o", 10.2), ("`", 20), ("a", 29), ("\u00b4", 38)]
    run = [Character(letter, (left, 0, left + 8, 9), 10, False, 0) for letter, left in drawn]
    assert segment_of(run).text == "G\u00f6`a\u00b4"


def test_the_number_of_a_page_alone_below_it_is_left_out():
    reading = read(pdf([*BODY, Words(300, 30, "1")]))
    assert [block.text for block in reading.blocks] == [BODY_TEXT]
    assert [each.characters for each in reading.left_out] == [1]
    assert texts([*BODY, Words(50, 30, "1"), Words(300, 30, "seal")]) == [BODY_TEXT, "1 seal"]


def test_invisible_text_is_kept_and_text_beside_the_page_is_not():
    assert texts([PICTURE, Words(50, 700, "recognised", mode=3), Words(50, 900, "above"), Words(-90, 700, "beside")]) == [
        "recognised"
    ]


def test_a_page_whose_text_is_turned_is_read_upright():
    page = [Words(100 + 12 * number, 50, words.text, matrix="0 1 -1 0") for number, words in enumerate(BODY)]
    assert texts(page) == [BODY_TEXT]


def test_turned_text_on_an_upright_page_is_out():
    reading = read(pdf([*BODY, Words(30, 300, "seen by 4", matrix="0 1 -1 0"), Words(200, 300, "DRAFT", matrix="1 1 -1 1")]))
    assert [block.text for block in reading.blocks] == [BODY_TEXT]
    assert reading.left_out == [LeftOut("12 characters of turned text", characters=12)]


def test_scanned_pages_are_named():
    reading = read(pdf(BODY, [PICTURE], []))
    assert reading.left_out == [LeftOut("page 2 is a picture without text (a scan)", place="page 2")]


def test_annotations_are_counted():
    note = "/Annots [<< /Type /Annot /Subtype /FreeText /Rect [0 0 9 9] >> << /Type /Annot /Subtype /Link /Rect [0 0 9 9] >>]"
    assert read(pdf(BODY, page_extra=note)).left_out == [LeftOut("1 annotations or form fields")]


PASSWORD = f"/Encrypt << /Filter /Standard /V 1 /R 2 /O <{'00' * 32}> /U <{'00' * 32}> /P -4 >> /ID [<00> <00>]"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "is not a PDF file, or is damaged"),
        (b"text", "is not a PDF file, or is damaged"),
        (pdf([PICTURE]), "has no text: it is a scan; run OCR over it first"),
        (pdf([]), "has no text"),
        (pdf(BODY, extra=PASSWORD), "is protected by a password; save it without one"),
        (pdf(BODY) + made_stream(zlib.compress(bytes(201_000_000))), "unfolds to more than 200 MB"),
        (pdf(BODY) + made_stream(zlib.compress(zlib.compress(bytes(9_000_000)))), "compressed twice"),
    ],
)
def test_other_files_are_refused(raw, message):
    with pytest.raises(DocumentError, match=message):
        read(raw)


def test_streams_are_counted_together_and_each_once():
    raw = pdf(BODY) + made_stream(zlib.compress(bytes(90_000_000))) * 2
    assert read(raw).blocks
    with pytest.raises(DocumentError, match="unfolds"):
        read(raw + made_stream(zlib.compress(bytes(30_000_000))))


def test_sizes_are_bounded(monkeypatch):
    for limit, message in (("MAX_BYTES", "larger"), ("MAX_PAGES", "pages"), ("MAX_CHARACTERS", "characters")):
        with monkeypatch.context() as patched, pytest.raises(DocumentError, match=message):
            patched.setattr(reader, limit, 0)
            read(pdf(BODY))
    monkeypatch.setattr(reader, "MAX_PAGE_CHARACTERS", 11)
    reading = read(pdf(lines("The keepers of")))
    assert [block.text for block in reading.blocks] == ["The keepers"]
    assert reading.left_out == [LeftOut("3 characters on overfull pages", characters=3)]


def damaged(raw: bytes, chance: random.Random) -> bytes:
    """Change bytes and numbers of a file, leave parts out, or repeat them."""
    for _ in range(chance.choice([1, 3, 10])):
        at = chance.randrange(len(raw))
        match chance.randrange(4):
            case 0:
                raw = raw[:at] + bytes([chance.randrange(256)]) + raw[at + 1 :]
            case 1:
                raw = raw[:at] + raw[at + chance.choice([1, 10, 100]) :]
            case 2:
                raw = raw[:at] + raw[-at : -at + 30] + raw[at:]
            case 3:
                number = re.compile(rb"\d+").search(raw, at)
                if number:
                    raw = raw[: number.start()] + chance.choice([b"0", b"-1", b"9999999999"]) + raw[number.end() :]
        raw = raw or b"%PDF"
    return raw


@COUNTS
def test_damaged_files_give_a_reading_or_an_error(count):
    raw, chance = pdf([*BODY, *lines(*LEFT, y=600), *lines(*RIGHT, x=300, y=600), PICTURE], BODY), random.Random(1)
    assert read_or_refused(read, (damaged(raw, chance) for _ in range(count))) > count / 2


PAGE = """<h1>The harbour</h1><p>Some well-known text about the efficient lighthouse, which stands on a rock near the coast and
goes on for several lines, so that it has to be broken at the margin of the page.</p>
<ul><li>Oil<li>Gas<ul><li>Town gas</ul></ul><ol><li>Light it<li>Watch it</ol><h2>End</h2><p>The rock.</p>"""


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium")
def test_a_page_printed_by_a_browser(tmp_path):
    (tmp_path / "page.html").write_text(PAGE)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer", f"--user-data-dir={tmp_path}/profile"]
    printed = tmp_path / "page.pdf"
    subprocess.run(["chromium", *options, f"--print-to-pdf={printed}", f"file://{tmp_path}/page.html"], check=True, timeout=120)
    assert [(block.kind, block.text, block.level) for block in read(printed.read_bytes()).blocks] == [
        ("heading", "The harbour", 1),
        ("text", " ".join(re.search("<p>(.*?)</p>", PAGE, re.DOTALL)[1].split()), 0),
        ("item", "- Oil", 1),
        ("item", "- Gas", 1),
        ("item", "- Town gas", 2),
        ("item", "1. Light it", 1),
        ("item", "2. Watch it", 1),
        ("heading", "End", 2),
        ("text", "The rock.", 0),
    ]
