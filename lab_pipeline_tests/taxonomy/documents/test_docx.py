from __future__ import annotations

import io
import random
import struct
import time
import zipfile
from contextlib import suppress

import docx
import pytest
from docx.document import Document
from docx.oxml import parse_xml

from lab_pipeline.taxonomy.documents.blocks import DocumentError, LeftOut, Reading
from lab_pipeline.taxonomy.documents.docx import READER, read
from lab_pipeline_tests.taxonomy.documents.damage import COUNTS, read_or_refused, spliced

XMLNS = " ".join(
    f'xmlns:{prefix}="{uri}"'
    for prefix, uri in {
        "w": "http://schemas.openxmlformats.org/wordprocessingml/2006/main",
        "m": "http://schemas.openxmlformats.org/officeDocument/2006/math",
        "mc": "http://schemas.openxmlformats.org/markup-compatibility/2006",
        "v": "urn:schemas-microsoft-com:vml",
        "wp": "http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing",
        "pic": "http://schemas.openxmlformats.org/drawingml/2006/picture",
    }.items()
)


def packed(parts: dict[str, bytes | str], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return file.getvalue()


def of_body(body: str, **parts: str) -> bytes:
    """A file whose document has this body, with other parts such as `footnotes`."""
    wrapped = {f"word/{name}.xml": f"<w:{name} {XMLNS}>{content}</w:{name}>" for name, content in parts.items()}
    return packed({"word/document.xml": f"<w:document {XMLNS}><w:body>{body}</w:body></w:document>", **wrapped})


def paragraph(content: str) -> str:
    return f"<w:p>{content if content.startswith('<') else run(content)}</w:p>"


def run(text: str, properties: str = "") -> str:
    return f'<w:r><w:rPr>{properties}</w:rPr><w:t xml:space="preserve">{text}</w:t></w:r>'


def saved(document: Document) -> Reading:
    file = io.BytesIO()
    document.save(file)
    return read(file.getvalue())


def shown(reading: Reading) -> list[tuple[str, int, str]]:
    return [(block.kind, block.level, block.text) for block in reading.blocks]


def texts(raw: bytes) -> list[str]:
    return [block.text for block in read(raw).blocks]


def test_styles_become_kinds_and_levels():
    document = docx.Document()
    styles = "Title, Subtitle, Heading 1, Heading 2, Heading 9, Caption, Quote, macro, Normal"
    for style in styles.split(", "):
        document.add_paragraph(f"{style} <b> & a_b", style)
    reading = saved(document)
    assert shown(reading) == [
        ("heading", 1, "Title <b> & a_b"),
        ("text", 0, "Subtitle <b> & a_b"),
        ("heading", 2, "Heading 1 <b> & a_b"),
        ("heading", 3, "Heading 2 <b> & a_b"),
        ("heading", 6, "Heading 9 <b> & a_b"),
        ("note", 0, "Caption <b> & a_b"),
        ("text", 0, "Quote <b> & a_b"),
        ("code", 0, "macro <b> & a_b"),
        ("text", 0, "Normal <b> & a_b"),
    ]
    assert reading.reader == READER and not reading.left_out
    assert {(block.line, block.place) for block in reading.blocks} == {(1, "")}


def test_headings_keep_their_level_without_a_title():
    document = docx.Document()
    document.add_heading("Rooms", 1)
    document.add_heading("Above", 3)
    assert shown(saved(document)) == [("heading", 1, "Rooms"), ("heading", 3, "Above")]


def test_code_keeps_its_lines_and_their_indentation():
    document = docx.Document()
    for line in ("if a:", "    go()"):
        document.add_paragraph(line, "macro")
    assert shown(saved(document)) == [("code", 0, "if a:\n    go()")]


def test_list_styles_keep_their_level_and_number():
    document = docx.Document()
    for style in (
        "List Bullet",
        "List Bullet 2",
        "List Bullet 3",
        "List Bullet",
        "List Number",
        "List Number 2",
        "List Number",
    ):
        document.add_paragraph("x", style)
    document.add_paragraph("more", "List Continue")
    assert shown(saved(document)) == [
        ("item", 1, "- x"),
        ("item", 2, "- x"),
        ("item", 3, "- x"),
        ("item", 1, "- x"),
        ("item", 1, "1. x"),
        ("item", 2, "1. x"),
        ("item", 1, "2. x"),
        ("item", 1, "more"),
    ]


def table(document: Document, rows: list[str], style: str = "Table Grid"):
    made = document.add_table(len(rows), len(rows[0].split()), style)
    for cells, content in zip(made.rows, rows, strict=True):
        for cell, text in zip(cells.cells, content.split(), strict=True):
            cell.text = text
    return made


def test_tables_have_headers_and_merged_cells():
    document = docx.Document()
    made = table(document, ["Harbour Keeper Keys", "North Ilse 3", "South Bram 5"])
    made.cell(1, 0).merge(made.cell(2, 0)).text = "Both"
    made.cell(2, 1).merge(made.cell(2, 2)).text = "none"
    assert shown(saved(document)) == [
        ("row", 0, "Harbour: Both; Keeper: Ilse; Keys: 3"),
        ("row", 0, "Harbour: Both; Keeper: none; Keys: none"),
    ]


def test_a_table_without_a_marked_header_has_none():
    document = docx.Document()
    look = table(document, ["a b", "c d"])._tbl.tblPr.find(docx.oxml.ns.qn("w:tblLook"))
    look.set(docx.oxml.ns.qn("w:firstRow"), "0")
    table(document, ["only row"])
    assert [text for _, _, text in shown(saved(document))] == ["a; b", "c; d", "only; row"]


def test_several_header_rows():
    row = "<w:tr><w:trPr>{}</w:trPr>{}</w:tr>".format
    cell = "<w:tc><w:tcPr>{}</w:tcPr>{}</w:tc>".format
    head = row("<w:tblHeader/>", cell('<w:gridSpan w:val="2"/>', paragraph("North")))
    head += row("<w:tblHeader/>", cell("", paragraph("Keeper")) + cell("", paragraph("Keys")))
    body = row('<w:tblHeader w:val="0"/>', cell("", paragraph("Ilse")) + cell("", paragraph("3")))
    assert texts(of_body(f"<w:tbl>{head}{body}</w:tbl>")) == ["North > Keeper: Ilse; North > Keys: 3"]


def test_what_is_not_shown_goes():
    document = docx.Document()
    styled = document.styles.add_style("Secret", docx.enum.style.WD_STYLE_TYPE.CHARACTER)
    styled.font.hidden = True
    made = document.add_paragraph("seen")
    made.add_run("hidden").font.hidden = True
    made.add_run("hidden", "Secret")
    shown_again = made.add_run("seen", "Secret")
    shown_again.font.hidden = False
    for change, tag in (("del", "delText"), ("ins", "t")):
        made._p.append(parse_xml(f'<w:{change} {XMLNS} w:id="1"><w:r><w:{tag}>{change}</w:{tag}></w:r></w:{change}>'))
    document.add_comment(made.runs[0], "a comment", author="x")
    reading = saved(document)
    assert [block.text for block in reading.blocks] == ["seenseenins"]
    assert list(reading.left_out) == [LeftOut("1 comment")]


def test_headers_and_footers_of_pages_are_counted():
    document = docx.Document()
    document.add_paragraph("text")
    document.sections[0].header.paragraphs[0].text = "The inn"
    document.sections[0].footer.paragraphs[0].text = "Page 1"
    reading = saved(document)
    assert [block.text for block in reading.blocks] == ["text"]
    assert list(reading.left_out) == [LeftOut("page headers", characters=6), LeftOut("page footers", characters=5)]


def test_notes_stand_after_the_paragraph_that_names_them():
    def note(kind: str, number: int) -> str:
        return f'<w:{kind} w:id="{number}">{paragraph(f"{kind} {number}")}</w:{kind}>'

    def reference(kind: str, number: int) -> str:
        return f'{run("a")}<w:r><w:{kind}Reference w:id="{number}"/></w:r>'

    cell = f"<w:tc>{paragraph(reference('footnote', 5))}</w:tc><w:tc>{paragraph('b')}</w:tc>"
    body = paragraph(reference("footnote", 2) + reference("endnote", 2) + reference("footnote", 3)) + paragraph("after")
    raw = of_body(
        f"{body}<w:tbl><w:tr>{cell}</w:tr></w:tbl>",
        footnotes=note("footnote", 2) + note("footnote", 3) + note("footnote", 5),
        endnotes=note("endnote", 2),
    )
    assert shown(read(raw)) == [
        ("text", 0, "a[1]a[2]a[3]"),
        ("note", 0, "[1] footnote 2"),
        ("note", 0, "[2] endnote 2"),
        ("note", 0, "[3] footnote 3"),
        ("text", 0, "after"),
        ("row", 0, "a[4] [4] footnote 5; b"),
    ]


def test_text_boxes_are_read_once():
    content = f"<w:txbxContent>{paragraph('in the box')}</w:txbxContent>"
    drawing = f"<w:drawing><wp:anchor><wp:docPr/>{content}</wp:anchor></w:drawing>"
    old = f"<w:pict><v:shape><v:textbox>{content}</v:textbox></v:shape></w:pict>"
    pair = f'<mc:Choice Requires="wps">{drawing}</mc:Choice><mc:Fallback>{old}</mc:Fallback>'
    pair = f"<mc:AlternateContent>{pair}</mc:AlternateContent>"
    for each in (drawing, old, pair):
        raw = of_body(paragraph(f"{run('before')}<w:r>{each}</w:r>{run(' it')}") + paragraph("after"))
        assert texts(raw) == ["before it", "in the box", "after"]
        assert not read(raw).left_out


def test_pictures_give_their_alternative_text_or_are_counted():
    def drawing(words: str) -> str:
        return f'<w:r><w:drawing><wp:inline><wp:docPr descr="{words}"/><pic:pic/></wp:inline></w:drawing></w:r>'

    raw = of_body(paragraph(run("See ") + drawing("three ships") + drawing("")) + paragraph(drawing(" ")))
    assert texts(raw) == ["See [three ships]"]
    assert list(read(raw).left_out) == [LeftOut("2 pictures without alternative text")]


def test_equations_are_text():
    power = "<m:sSup><m:e><m:r><m:t>x</m:t></m:r></m:e><m:sup><m:r><m:t>n</m:t></m:r><m:r><m:t>+1</m:t></m:r></m:sup></m:sSup>"
    part = "<m:f><m:num><m:r><m:t>a+b</m:t></m:r></m:num><m:den><m:r><m:t>2</m:t></m:r></m:den></m:f>"
    raw = of_body(
        paragraph(f"{run('f = ')}<m:oMath>{power}{part}</m:oMath>{run('.')}")
        + paragraph(f"<m:oMathPara><m:oMath>{part}</m:oMath></m:oMathPara>")
    )
    assert texts(raw) == ["f = x^(n+1)(a+b)/2.", "(a+b)/2"]


def test_text_in_simple_fields_and_line_ends_is_kept():
    raw = of_body(
        paragraph(
            f'<w:fldSimple w:instr="REF x">{run("Keeper")}</w:fldSimple><w:r><w:cr/><w:t>Ilse</w:t><w:br/><w:t>x</w:t></w:r>'
        )
    )
    assert texts(raw) == ["Keeper Ilse x"]


def test_symbols_are_read_or_counted():
    symbol = '<w:r><w:sym w:font="{}" w:char="{}"/></w:r>'.format
    raw = of_body(paragraph(run("a") + symbol("Wingdings", "F04A") + symbol("Unheard", "F0A7")))
    assert texts(raw) == ["a☺"]
    assert list(read(raw).left_out) == [LeftOut("1 sign of a font for symbols", characters=1)]


def test_the_strict_form_of_the_format_is_read_alike():
    body = f"<w:body>{paragraph(run('no', '<w:vanish/>') + run('yes'))}</w:body>"
    body = f'<w:document xmlns:w="http://purl.oclc.org/ooxml/wordprocessingml/main">{body}</w:document>'
    assert texts(packed({"word/document.xml": body})) == ["yes"]


def announcing(raw: bytes, size: int) -> bytes:
    """The file, but its directory announces another size of its only entry."""
    place = raw.index(b"PK\x01\x02")
    return raw[: place + 24] + struct.pack("<I", size) + raw[place + 28 :]


LOL = f"""<!DOCTYPE w:document [<!ENTITY a 'lol'><!ENTITY b '&a;&a;'><!ENTITY f SYSTEM 'file:///etc/passwd'>]>
<w:document {XMLNS}><w:body><w:p><w:r><w:t>&b;&f;</w:t></w:r></w:p></w:body></w:document>"""
WHOLE = of_body(paragraph("a" * 1_000))
REFUSED = {
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600): "protected by a password",
    b"": "is not a .docx file, or is damaged",
    b"plain text": "is not a .docx file, or is damaged",
    WHOLE[:-30]: "is not a .docx file, or is damaged",
    WHOLE[:60] + b"\xff" * 20 + WHOLE[80:]: "is not a .docx file, or is damaged",
    packed({"word/styles.xml": "<a/>"}): "no word/document.xml",
    packed({"word/document.xml": "<a>"}): "not well-formed",
    packed({"word/document.xml": "<a/>"}): "not a Word document",
    packed({"word/document.xml": LOL}): "document type",
    packed({"word/document.xml": "<a>" * 5_000 + "</a>" * 5_000}): "not well-formed",
    packed({"word/document.xml": b" " * 25_000_000}): "unfolds to 25 MB",
    packed({"word/document.xml": random.Random(1).randbytes(31_000) * 1_000}, zipfile.ZIP_STORED): "more than 30 MB of text",
    announcing(WHOLE, 300_000_000): "unfolds to 300 MB",
    announcing(WHOLE, 10): "is not a .docx file, or is damaged",
}


@pytest.mark.parametrize("raw", REFUSED, ids=range(len(REFUSED)))
def test_what_is_no_whole_word_file_is_refused(raw):
    started = time.monotonic()
    with pytest.raises(DocumentError, match=REFUSED[raw]):
        read(raw)
    assert time.monotonic() - started < 5


@COUNTS
def test_damaged_files_are_read_or_refused(count):
    document = docx.Document()
    document.add_paragraph("x", "List Bullet 2")
    table(document, ["a b", "c d"])
    file = io.BytesIO()
    document.save(file)
    with zipfile.ZipFile(file) as archive:
        names = (
            "word/document.xml",
            "word/numbering.xml",
            "_rels/.rels",
            "word/_rels/document.xml.rels",
            "[Content_Types].xml",
        )
        parts = {name: archive.read(name) for name in names}
    chance = random.Random(count)

    def damaged() -> bytes:
        if chance.random() < 0.2:
            return spliced(packed(parts), chance, [b"", b"<", b"9"])
        name = chance.choice(names)  # well-formed, so that more than the parser is tried
        words = parts[name].split(b'"')
        words[chance.randrange(len(words) // 2) * 2 + 1] = chance.choice([b"", b"-1", b"99999999999", b"x", b"w:p", b"0"])
        return packed({**parts, name: b'"'.join(words)})

    read_or_refused(read, (damaged() for _ in range(count)))


def test_tables_in_tables_in_tables_are_read_or_refused():
    for depth in (2, 20, 80):
        nested = "<w:tbl><w:tr><w:tc>" * depth + paragraph("x") + "</w:tc></w:tr></w:tbl>" * depth
        with suppress(DocumentError):
            assert texts(of_body(nested)) == ["x"]
