"""Read PPTX: titles, text, lists, tables, charts, diagrams and notes of the slides that are shown, in reading order."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lab_pipeline.taxonomy.documents.archive import check_archive
from lab_pipeline.taxonomy.documents.blocks import Block, DocumentError, LeftOut, Reading, collapsed, raised, row

READER = "pptx 1"

_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_C = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"
_D = "{http://schemas.openxmlformats.org/drawingml/2006/diagram}"
_M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_DECORATIVE = "{http://schemas.microsoft.com/office/drawing/2017/decorative}decorative"

_FURNITURE = "dates, footers and slide numbers"
_PICTURES = "pictures without alternative text"
_FORMULAS = "formulas"
_HIDDEN = "hidden shapes"
_OBJECTS = "embedded objects, charts or diagrams without text"


def read(raw: bytes) -> Reading:
    """Read a PPTX file.

    Raises:
        DocumentError: The file is no PPTX or damaged, has a password, or unfolds to too much.
    """
    from pptx import Presentation

    check_archive(raw, ".pptx")
    try:
        blocks: list[Block] = []
        left_out: list[LeftOut] = []
        totals, characters = Counter[str](), Counter[str]()
        for number, slide in enumerate(Presentation(io.BytesIO(raw)).slides, 1):
            place = f"slide {number}"
            if slide.element.get("show") in ("0", "false"):
                left_out.append(LeftOut(f"{place} is hidden", place=place))
                continue
            blocks += _Slide(slide, place, totals, characters).blocks()
    except DocumentError:
        raise
    except Exception as error:  # python-pptx takes parts for granted, and raises errors of many kinds where they lack
        raise DocumentError(f"is not a .pptx file, or is damaged ({type(error).__name__})") from None
    left_out += [LeftOut(f"{count} {what}", characters=characters[what]) for what, count in totals.items()]
    return Reading(READER, blocks, left_out)


@dataclass
class _Slide:
    slide: Any
    place: str
    totals: Counter[str]
    """How many things of each kind are left out, added to by the methods."""
    characters: Counter[str] = field(repr=False)
    """Number of visible characters of these things."""

    def blocks(self) -> Iterator[Block]:
        _use_newest(self.slide.element)
        title = self.slide.shapes.title
        if title is not None and collapsed(title.text_frame.text):
            yield Block("heading", collapsed(title.text_frame.text), 1, place=self.place)
        yield from self._shapes(each for each in self.slide.shapes if title is None or each.shape_id != title.shape_id)
        formulas = ["".join(each.itertext()) for each in self.slide.element.iter(f"{_M}oMath")]
        self._leave_out(_FORMULAS, "".join(formulas), len(formulas))
        notes = self.slide.notes_slide.notes_text_frame if self.slide.has_notes_slide else None
        for paragraph in notes.paragraphs if notes else ():
            if collapsed(paragraph.text):
                yield Block("note", collapsed(paragraph.text), place=self.place)

    def _leave_out(self, what: str, text: str = "", count: int = 1) -> None:
        if count:
            self.totals[what] += count
            self.characters[what] += len("".join(text.split()))

    def _shapes(self, shapes: Any) -> Iterator[Block]:
        for shape in _in_reading_order(list(shapes)):
            properties = next(shape.element.iter("{*}cNvPr"))
            if properties.get("hidden") in ("1", "true"):
                self._leave_out(_HIDDEN)
            elif hasattr(shape, "shapes"):  # a group
                yield from self._shapes(shape.shapes)
            elif getattr(shape, "has_table", False):
                yield from self._table(shape.table)
            elif shape.element.tag.endswith("}graphicFrame"):
                yield from self._graphic(shape)
            elif shape.has_text_frame:
                yield from self._text(shape)
            elif shape.element.tag.endswith("}pic"):
                text = collapsed(properties.get("descr") or "")
                is_decorative = any(each.get("val") == "1" for each in properties.iter(_DECORATIVE))
                if text:
                    yield Block("text", text, place=self.place)
                elif not is_decorative:
                    self._leave_out(_PICTURES)

    def _text(self, shape: Any) -> Iterator[Block]:
        """Yield the paragraphs of a shape: in the placeholder of a slide's body they are items of a list, unless it says no."""
        from pptx.enum.shapes import PP_PLACEHOLDER as KIND

        kind = shape.placeholder_format.type if shape.is_placeholder else None
        if kind in (KIND.DATE, KIND.FOOTER, KIND.SLIDE_NUMBER):
            if shape.text_frame.text.strip():
                self._leave_out(_FURNITURE, shape.text_frame.text)
            return
        is_list = kind in (KIND.BODY, KIND.OBJECT, KIND.VERTICAL_BODY, KIND.VERTICAL_OBJECT) and not self._lacks_bullets(shape)
        for paragraph in shape.text_frame.paragraphs:
            bullets = {each.tag.removeprefix(_A) for each in paragraph._p.iterfind(f"{_A}pPr/*")}
            is_item = bool(bullets & {"buChar", "buAutoNum", "buBlip"}) or (is_list and "buNone" not in bullets)
            if text := _text_of(paragraph):
                level = paragraph.level + 1 if is_item else 0
                yield Block("item" if is_item else "text", f"- {text}" if is_item else text, level, place=self.place)

    def _lacks_bullets(self, shape: Any) -> bool:
        """Tell whether the slide's layout takes the bullets from a placeholder, as it does for captions."""
        index = shape.placeholder_format.idx
        layouts = [each for each in self.slide.slide_layout.placeholders if each.placeholder_format.idx == index]
        return any(next(each.element.iter(f"{_A}lvl1pPr"), each.element).find(f"{_A}buNone") is not None for each in layouts)

    def _table(self, table: Any) -> Iterator[Block]:
        """Yield the rows of a table. A merged cell is repeated; a first row that is formatted as such gives the headers."""
        grid: list[list[str]] = []
        for line in table.rows:
            cells: list[str] = []
            for cell in line.cells:
                if cell._tc.hMerge and cells:
                    cells.append(cells[-1])
                elif cell._tc.vMerge and grid and len(cells) < len(grid[-1]):
                    cells.append(grid[-1][len(cells)])
                else:
                    cells.append(" ".join(map(_text_of, cell.text_frame.paragraphs)))
            grid.append(cells)
        headers = grid.pop(0) if table.first_row and len(grid) > 1 else []
        yield from self._rows(grid, headers)

    def _rows(self, grid: list[list[str]], headers: list[str]) -> Iterator[Block]:
        for cells in grid:
            if block := row(cells, headers, place=self.place):
                yield block

    def _graphic(self, shape: Any) -> Iterator[Block]:
        """Yield the rows of a chart, one for each category, or the texts of a diagram (SmartArt)."""
        text = collapsed(next(shape.element.iter("{*}cNvPr")).get("descr") or "")
        found = [Block("text", text, place=self.place)] if text else []
        relation = next(shape.element.iter(f"{_D}relIds"), None)
        if shape.has_chart:
            found += self._chart(shape.chart_part._element)
        elif relation is not None:
            from lxml import etree

            data = self.slide.part.related_part(relation.get(f"{_R}dm")).blob
            for point in etree.fromstring(data, etree.XMLParser(resolve_entities=False, no_network=True)).iter(f"{_D}pt"):
                text = collapsed(" ".join(_texts(paragraph) for paragraph in point.iter(f"{_A}p")))
                if text and point.get("type", "node") == "node":
                    found.append(Block("item", f"- {text}", 1, place=self.place))
        if not found:
            self._leave_out(_OBJECTS)
        yield from found

    def _chart(self, chart: Any) -> Iterator[Block]:
        for title in chart.iterfind(f"{_C}chart/{_C}title"):
            if text := collapsed(_texts(title)):
                yield Block("text", text, place=self.place)
        names: list[str] = []
        rows: dict[int, list[str]] = {}  # by number of the category, which the first series names
        for number, series in enumerate(chart.iter(f"{_C}ser")):
            names.append(" ".join(each.text or "" for each in series.iterfind(f"{_C}tx//{_C}v")))
            labels, values = _points(series, "cat", "xVal"), _points(series, "val", "yVal")
            for index, value in values.items():
                cells = rows.setdefault(index, [labels.get(index, "")])
                cells += [""] * (number + 1 - len(cells)) + [value]
        yield from self._rows([cells for _, cells in sorted(rows.items())], ["", *names])


def _points(series: Any, *names: str) -> dict[int, str]:
    """Return the stored points of a chart's series by index; python-pptx would count up to any number in the file."""
    points = [point for name in names for point in series.iterfind(f"{_C}{name}//{_C}pt")]
    return {int(point.get("idx")): "".join(each.text or "" for each in point.iter(f"{_C}v")) for point in points}


def _text_of(paragraph: Any) -> str:
    parts = []
    for run in paragraph._p.content_children:
        properties = run.find(f"{_A}rPr")
        is_raised = properties is not None and properties.get("baseline", "").startswith(tuple("123456789"))
        parts.append(raised(run.text) if is_raised else run.text)
    return collapsed("".join(parts))


def _texts(element: Any) -> str:
    return "".join(each.text or "" for each in element.iter(f"{_A}t"))


def _use_newest(slide: Any) -> None:
    """Put the content for new versions of PowerPoint in the place of each alternative; python-pptx passes over both."""
    for alternative in list(slide.iter(f"{_MC}AlternateContent")):
        for choice in alternative.findall(f"{_MC}Choice")[:1]:
            for child in list(choice):
                alternative.addprevious(child)
        alternative.getparent().remove(alternative)


def _in_reading_order(shapes: list[Any]) -> list[Any]:
    """Sort shapes from top to bottom; those beside each other, by more than half the height of one, from left to right."""
    bands: list[tuple[int, list[Any]]] = []
    for shape in sorted(shapes, key=lambda shape: shape.top or 0):
        top, height = shape.top or 0, shape.height or 0
        bottom = top + height
        if bands and min(bands[-1][0], bottom) - top > 0.5 * min(height, bands[-1][0] - (bands[-1][1][0].top or 0)):
            bands[-1] = (max(bands[-1][0], bottom), [*bands[-1][1], shape])
        else:
            bands.append((bottom, [shape]))
    return [shape for _, band in bands for shape in sorted(band, key=lambda shape: (shape.left or 0, shape.top or 0))]
