"""Turn the cells of an HTML table into rows that name the header of each cell, whatever cells are merged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from lxml import etree

from lab_pipeline.taxonomy.documents.blocks import Block, DocumentError, row

MOST_CHARACTERS = 30_000_000
"""Maximum number of characters in the rows of a table, because few bytes of source can repeat a cell endlessly."""


class Cell(NamedTuple):
    """One cell of a table as the source has it, with the number of columns and rows that it covers."""

    text: str
    is_header: bool = False
    columns: int = 1
    rows: int = 1


@dataclass
class Row:
    """One row of a table as the source has it. A cell reaches down only within its `group`, such as one `<tbody>`."""

    line: int
    group: object = None
    is_header: bool = False
    cells: list[Cell] = field(default_factory=list)


def cell_of(element: etree._Element, text: str) -> Cell:
    """Make the cell of a `<td>` or `<th>`. Spans have the limits of browsers: 1,000 columns, 65,534 rows."""
    rows = _number(element.get("rowspan"), 65_534)
    return Cell(text, element.tag == "th", _number(element.get("colspan"), 1_000) or 1, rows or 65_534)


def _number(text: str | None, most: int) -> int:
    text = (text or "1").strip()[:9]
    return min(int(text), most) if text.isascii() and text.isdigit() else 1


def is_layout(table: etree._Element) -> bool:
    """Say whether a table only arranges a page: it has no header cell, and one column or headings and tables in its cells."""
    if table.get("role") in ("presentation", "none"):
        return True
    rows = table.xpath("tr | tbody/tr | tfoot/tr")
    cells = [[cell for cell in each if cell.tag in ("td", "th")] for each in [table, *rows]]
    if table.find("thead") is not None or any(cell.tag == "th" for each in cells for cell in each):
        return False
    inner = any(each is not table for each in table.iter("table", "h1", "h2", "h3", "h4", "h5", "h6"))
    return inner or all(len(each) <= 1 for each in cells)


def table_rows(rows: list[Row]) -> list[Block]:
    """Make the blocks of a table's rows. Header rows come first and give none, except for headers above empty columns.

    Raises:
        DocumentError: The rows would have more than `MOST_CHARACTERS`.
    """
    heads = 0
    while heads < len(rows) and (rows[heads].is_header or _has_only_headers(rows[heads])):
        heads += 1
    if heads == len(rows):
        heads = 0
    grid = list(_grid(rows))
    width = max((len(cells) for cells in grid), default=0)
    headers = [_joined([cells[column] for cells in grid[:heads] if column < len(cells)]) for column in range(width)]
    blocks = [row([""] * width, headers)]
    used: set[str] = set()
    characters = 0
    for source, cells in zip(rows[heads:], grid[heads:], strict=True):
        above = [header if cell else "" for header, cell in zip(headers, cells, strict=False)]
        used.update(above)
        characters += sum(map(len, above))
        _refuse_beyond_bounds(characters, source.line)
        blocks.append(row(cells, headers, source.line))
    unused = [header for header, _ in groupby(headers) if header not in used]
    blocks[0] = row(unused, [], rows[0].line) if unused else None
    return [block for block in blocks if block]


def _has_only_headers(row: Row) -> bool:
    filled = [cell for cell in row.cells if cell.text]
    return bool(filled) and all(cell.is_header for cell in filled)


def _joined(texts: list[str]) -> str:
    return " > ".join(text for text, _ in groupby(texts) if text)


def _grid(rows: list[Row]) -> Iterator[list[str]]:
    """Yield the texts of each row, merged cells once for each column and row that they cover."""
    reaching: dict[int, tuple[str, int]] = {}  # by column: the text of a cell above, and how many rows it still covers
    group: object = None
    characters = 0
    for each in rows:
        if each.group is not group:
            reaching, group = {}, each.group
        placed: dict[int, tuple[str, int]] = {}  # by column
        column = 0
        for cell in each.cells:
            while column in reaching:
                column += 1
            for covered in range(column, column + cell.columns):
                placed[covered] = (cell.text, cell.rows)
                characters += len(cell.text) + 30  # an empty cell costs time, too
            _refuse_beyond_bounds(characters, each.line)
            column += cell.columns
        characters += sum(len(text) + 30 for text, _ in reaching.values())
        placed = reaching | placed
        yield [placed.get(column, ("", 0))[0] for column in range(max(placed, default=-1) + 1)]
        reaching = {column: (text, left - 1) for column, (text, left) in placed.items() if left > 1}


def _refuse_beyond_bounds(characters: int, line: int) -> None:
    if characters > MOST_CHARACTERS:
        raise DocumentError("a table repeats its cells or headers beyond 30 million characters", line)
