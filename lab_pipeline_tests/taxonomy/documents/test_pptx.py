import io
import random
import re
import zipfile

import pytest
from lxml import etree
from pptx import Presentation
from pptx.chart.data import CategoryChartData, XyChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.opc.package import Part
from pptx.opc.packuri import PackURI
from pptx.util import Inches

from lab_pipeline.taxonomy.documents.blocks import DocumentError, LeftOut
from lab_pipeline.taxonomy.documents.pptx import read
from lab_pipeline_tests.taxonomy.documents.damage import COUNTS, read_or_refused

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)
A = "http://schemas.openxmlformats.org/drawingml/2006/main"
D = "http://schemas.openxmlformats.org/drawingml/2006/diagram"
R = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
POINT = "<d:pt{}><d:t><a:p><a:r><a:t>{}</a:t></a:r><a:r><a:t>{}</a:t></a:r></a:p></d:t></d:pt>"
POINTS = (
    POINT.format("", "Light", " the lamp") + POINT.format(' type="pres"', "x", "") + POINT.format(' type="node"', "Watch", "")
)
DIAGRAM = f'<d:dataModel xmlns:d="{D}" xmlns:a="{A}"><d:ptLst>{POINTS}</d:ptLst></d:dataModel>'
TITLE, LIST, TITLE_ONLY, BLANK, CAPTION = 0, 1, 5, 6, 8  # layouts


@pytest.fixture
def deck():
    return Presentation()


def add(deck, layout=BLANK):
    return deck.slides.add_slide(deck.slide_layouts[layout])


def part(slide, xml: str) -> Part:
    return Part(PackURI("/ppt/diagrams/data1.xml"), "application/xml", slide.part.package, xml.encode())


def add_box(shapes, text, left=1.0, top=1.0, height=0.5):
    box = shapes.add_textbox(Inches(left), Inches(top), Inches(2), Inches(height))
    box.text_frame.text = text
    return box


def saved(deck) -> bytes:
    buffer = io.BytesIO()
    deck.save(buffer)
    return buffer.getvalue()


def blocks(deck) -> list[tuple[str, str, int, str]]:
    return [(block.kind, block.text, block.level, block.place) for block in read(saved(deck)).blocks]


def test_titles_are_headings_and_body_paragraphs_items(deck):
    first, second = add(deck, TITLE), add(deck, LIST)
    first.shapes.title.text, first.placeholders[1].text_frame.text = "Keepers\vof lights", "A subtitle"
    body = second.placeholders[1].text_frame
    second.shapes.title.text, body.text = "Oil", "Whale & seal"
    nested = body.add_paragraph()
    nested.text, nested.level = "until 1850", 1
    body.add_paragraph().text = "  "
    assert blocks(deck) == [
        ("heading", "Keepers of lights", 1, "slide 1"),
        ("text", "A subtitle", 0, "slide 1"),
        ("heading", "Oil", 1, "slide 2"),
        ("item", "- Whale & seal", 1, "slide 2"),
        ("item", "- until 1850", 2, "slide 2"),
    ]


def test_paragraphs_without_bullets_are_text(deck):
    slide = add(deck, LIST)
    body = slide.placeholders[1].text_frame
    body.text = "plain"
    etree.SubElement(body.paragraphs[0]._p.get_or_add_pPr(), "{http://schemas.openxmlformats.org/drawingml/2006/main}buNone")
    box = add_box(slide.shapes, "in a box", top=6)
    line = box.text_frame.add_paragraph()
    line.text = "a bullet"
    etree.SubElement(line._p.get_or_add_pPr(), "{http://schemas.openxmlformats.org/drawingml/2006/main}buChar", char="•")
    caption = add(deck, CAPTION)
    caption.placeholders[2].text_frame.text = "A caption"
    assert blocks(deck) == [
        ("text", "plain", 0, "slide 1"),
        ("text", "in a box", 0, "slide 1"),
        ("item", "- a bullet", 1, "slide 1"),
        ("text", "A caption", 0, "slide 2"),
    ]


def test_raised_numbers_stay_raised(deck):
    slide = add(deck)
    cell = slide.shapes.add_table(1, 1, 0, 0, Inches(1), Inches(1)).table.cell(0, 0)
    for frame in (add_box(slide.shapes, "10", top=3).text_frame, cell.text_frame):
        frame.text = "10"
        run = frame.paragraphs[0].add_run()
        run.text = "5"
        run.font._element.set("baseline", "30000")
    assert [text for _, text, *_ in blocks(deck)] == ["10⁵", "10⁵"]


def test_shapes_are_read_in_bands_from_left_to_right_and_groups_whole(deck):
    slide = add(deck, TITLE_ONLY)
    add_box(slide.shapes, "bottom", top=6)
    add_box(slide.shapes, "right", left=5, top=1.9)
    add_box(slide.shapes, "left", left=1, top=2)
    group = slide.shapes.add_group_shape()
    inner = group.shapes.add_group_shape()
    add_box(group.shapes, "group 2", left=1, top=5)
    add_box(inner.shapes, "group 1", left=1, top=4)
    slide.shapes.title.text = "Title"
    slide.shapes.title.top = Inches(7)
    assert [text for _, text, *_ in blocks(deck)] == ["Title", "left", "right", "group 1", "group 2", "bottom"]


def test_columns_of_boxes_beside_one_tall_box(deck):
    slide = add(deck)
    for text, left, top, height in (("b", 4, 1, 1), ("c", 4, 2.5, 1), ("a", 1, 1, 3)):
        add_box(slide.shapes, text, left, top, height)
    assert [text for _, text, *_ in blocks(deck)] == ["a", "b", "c"]


def table(slide, rows, first_row=True):
    made = slide.shapes.add_table(len(rows), len(rows[0]), Inches(1), Inches(1), Inches(6), Inches(2)).table
    for line, texts in zip(made.rows, rows, strict=True):
        for cell, text in zip(line.cells, texts, strict=True):
            cell.text = text
    made.first_row = first_row
    return made


def test_table_rows_have_their_headers(deck):
    table(add(deck), [["Harbour", "Keeper"], ["North", "Ilse"], ["South", ""]])
    table(add(deck), [["North", "Ilse"], ["South", "Ove"]], first_row=False)
    assert blocks(deck) == [
        ("row", "Harbour: North; Keeper: Ilse", 0, "slide 1"),
        ("row", "Harbour: South", 0, "slide 1"),
        ("row", "North; Ilse", 0, "slide 2"),
        ("row", "South; Ove", 0, "slide 2"),
    ]


def test_merged_cells_are_repeated(deck):
    made = table(add(deck), [["Year", "North", "South"], ["1850", "oil", ""], ["", "gas", "coal"]])
    made.cell(1, 0).merge(made.cell(2, 0))
    made.cell(1, 1).merge(made.cell(1, 2))
    assert [text for _, text, *_ in blocks(deck)] == [
        "Year: 1850; North: oil; South: oil",
        "Year: 1850; North: gas; South: coal",
    ]


def test_notes_come_after_the_slide(deck):
    slide = add(deck)
    slide.notes_slide.notes_text_frame.text = "First.\nSecond."
    add_box(slide.shapes, "shown")
    assert blocks(deck) == [
        ("text", "shown", 0, "slide 1"),
        ("note", "First.", 0, "slide 1"),
        ("note", "Second.", 0, "slide 1"),
    ]


def test_alternative_text_is_kept_and_pictures_without_are_counted(deck):
    slide = add(deck)
    for text in ("A lamp", "", ""):
        picture = slide.shapes.add_picture(io.BytesIO(PNG), Inches(1), Inches(1))
        picture._element.nvPicPr.cNvPr.set("descr", text)
    reading = read(saved(deck))
    assert [block.text for block in reading.blocks] == ["A lamp"]
    assert reading.left_out == [LeftOut("2 pictures without alternative text")]


def test_charts_give_a_row_for_each_category(deck):
    data = CategoryChartData()
    data.categories = ["1850", "1900"]
    data.add_series("Oil", (3, None))
    data.add_series("Gas", (1.5, 4))
    place = (Inches(1), Inches(1), Inches(5), Inches(3))
    chart = add(deck).shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, *place, data).chart
    chart.has_title = True
    chart.chart_title.text_frame.text = "Fuel"
    points = XyChartData()
    points.add_series("Height").add_data_point(1, 2)
    add(deck).shapes.add_chart(XL_CHART_TYPE.XY_SCATTER, *place, points)
    assert [(kind, text) for kind, text, *_ in blocks(deck)] == [
        ("text", "Fuel"),
        ("row", "1850; Oil: 3; Gas: 1.5"),
        ("row", "1900; Gas: 4"),
        ("row", "1; Height: 2"),
    ]


def test_diagrams_give_the_texts_of_their_nodes(deck):
    slide = add(deck)
    relation = slide.part.relate_to(part(slide, DIAGRAM), f"{R}/diagramData")
    data = slide.shapes.add_table(1, 1, 0, 0, 10, 10)._element.graphic.graphicData
    data.remove(data[0])
    data.set("uri", D)
    data.append(etree.fromstring(f'<d:relIds xmlns:d="{D}" xmlns:r="{R}" r:dm="{relation}"/>'))
    assert blocks(deck) == [("item", "- Light the lamp", 1, "slide 1"), ("item", "- Watch", 1, "slide 1")]


def test_hidden_slides_and_shapes_are_out(deck):
    add(deck)._element.set("show", "0")
    slide = add(deck)
    add_box(slide.shapes, "hidden")._element.nvSpPr.cNvPr.set("hidden", "1")
    add_box(slide.shapes, "shown")
    reading = read(saved(deck))
    assert [(block.text, block.place) for block in reading.blocks] == [("shown", "slide 2")]
    assert reading.left_out == [LeftOut("slide 1 is hidden", place="slide 1"), LeftOut("1 hidden shapes")]


def test_dates_footers_and_slide_numbers_are_out(deck):
    slide = add(deck)
    for layout in slide.slide_layout.placeholders:
        slide.shapes.clone_placeholder(layout)
    for shape, text in zip(slide.placeholders, ("1 May", "Lamps Ltd", "7"), strict=True):
        shape.text_frame.text = text
    reading = read(saved(deck))
    assert not reading.blocks
    assert reading.left_out == [LeftOut("3 dates, footers and slide numbers", characters=13)]


def rewritten(raw: bytes, name: str, change) -> bytes:
    """Change one part of a saved presentation."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.namelist():
            new.writestr(entry, change(old.read(entry)) if entry == name else old.read(entry))
    return buffer.getvalue()


SLIDE = "ppt/slides/slide1.xml"


def test_content_for_newer_versions_is_read_once(deck):
    slide = add(deck)
    add_box(slide.shapes, "new")
    add_box(slide.shapes, "old", top=5)

    def alternative(xml: bytes) -> bytes:
        shapes = re.findall(rb"<p:sp>.*?</p:sp>", xml)
        both = b'<mc:AlternateContent xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006">'
        both += b'<mc:Choice Requires="a14">%s</mc:Choice><mc:Fallback>%s</mc:Fallback></mc:AlternateContent>' % tuple(shapes)
        return xml.replace(b"".join(shapes), both)

    assert [block.text for block in read(rewritten(saved(deck), SLIDE, alternative)).blocks] == ["new"]


def test_entities_are_not_resolved(deck):
    add_box(add(deck).shapes, "secret")

    def entity(xml: bytes) -> bytes:
        xml = xml.replace(b"secret", b"&file;")
        return re.sub(rb"(<p:sld )", rb'<!DOCTYPE x [<!ENTITY file SYSTEM "file:///etc/passwd">]>\1', xml, count=1)

    assert not read(rewritten(saved(deck), SLIDE, entity)).blocks


@pytest.mark.parametrize("name", ["ppt/presentation.xml", SLIDE, "[Content_Types].xml", "ppt/slides/_rels/slide1.xml.rels"])
def test_files_with_a_broken_part_are_refused(deck, name):
    add(deck, LIST)
    with pytest.raises(DocumentError, match=r"is not a .pptx file, or is damaged"):
        read(rewritten(saved(deck), name, lambda xml: xml[:-20]))


def test_other_files_are_refused(deck):
    raw = saved(deck)
    for other in (b"", b"text", raw[: len(raw) // 2], rewritten(raw, "none", bytes)[:-5]):
        with pytest.raises(DocumentError):
            read(other)
    with pytest.raises(DocumentError, match="password"):
        read(bytes.fromhex("D0CF11E0A1B11AE1") + bytes(1000))


def damaged(raw: bytes, chance: random.Random) -> bytes:
    """Change one part of a presentation: bytes, tags, or numbers."""
    with zipfile.ZipFile(io.BytesIO(raw)) as opened:
        names = [name for name in opened.namelist() if re.search(r"slide1|chart|presentation|notes.*1|Content", name)]
    name = chance.choice(names)

    def change(data: bytes) -> bytes:
        for _ in range(chance.choice([1, 1, 5])):
            at = chance.randrange(len(data))
            match chance.randrange(4):
                case 0:
                    data = data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
                case 1:
                    data = re.sub(rb"<[^/?>][^>]*/>", b"", data[:at]) + data[at:]
                case 2:
                    tags = list(re.finditer(rb'"\d+"', data))
                    if tags:
                        tag = chance.choice(tags)
                        data = data[: tag.start()] + chance.choice([b'"-1"', b'"x"', b'"4294967295"']) + data[tag.end() :]
                case 3:
                    tag_names = list(re.finditer(rb"<(\w+:)?\w+", data))
                    if tag_names:
                        data = data.replace(chance.choice(tag_names).group(), b"<p:other", 1)
        return data

    return rewritten(raw, name, change)


@COUNTS
def test_damaged_files_give_a_reading_or_an_error(deck, count):
    slide = add(deck, LIST)
    slide.shapes.title.text = "Title"
    slide.placeholders[1].text_frame.text = "body"
    slide.notes_slide.notes_text_frame.text = "note"
    table(slide, [["a", "b"], ["c", "d"]]).cell(0, 0).merge(slide.shapes[-1].table.cell(0, 1))
    data = CategoryChartData()
    data.categories = ["1850"]
    data.add_series("Oil", (3,))
    slide.shapes.add_chart(XL_CHART_TYPE.PIE, 0, 0, 10, 10, data)
    raw, chance = saved(deck), random.Random(1)
    read_or_refused(read, (damaged(raw, chance) for _ in range(count)))
