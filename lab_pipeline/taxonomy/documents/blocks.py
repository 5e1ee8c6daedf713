"""Hold what a reader finds in a document: blocks of visible text, each with its place, and what it leaves out.

All readers give the same blocks, so that passages are split alike whatever the format. The text of the blocks is plain, without
markup; a document's *normalised text* joins the texts of all its blocks, and spans of passages count in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from lab_pipeline.core.errors import LabError

Kind = Literal["heading", "text", "item", "row", "code", "note"]
"""`item` is an item of a list, `row` a row of a table, `note` a footnote, speaker note or caption."""

_RAISED = str.maketrans("0123456789+-−", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻")


class DocumentError(LabError):
    """Raised for a file that is not of its kind or cannot be read whole; `line` (1-based) says where, 1 if it has no lines."""

    def __init__(self, message: str, line: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


@dataclass(frozen=True)
class Block:
    """One stretch of a document's visible text: a heading, paragraph, list item, table row, code block or note."""

    kind: Kind
    text: str
    """Plain text. White space is collapsed, but code keeps its lines and their indentation. An item begins with '- ' or its
    number. Of a row, see `row`."""
    level: int = 0
    """Of a heading 1 to 6, of a list item 1 for the outermost list; else 0."""
    line: int = 1
    """First line of the block in the source, 1-based; 1 where the format has no lines."""
    place: str = ""
    """Where people find it in a format with pages, such as 'page 3' or 'slide 2'; else ''."""


@dataclass(frozen=True)
class LeftOut:
    """Something visible in a document that its reader did not turn into a block, for a warning on the leaf."""

    what: str
    """In a sentence's words, such as '2 pictures without alternative text'."""
    line: int = 1
    place: str = ""
    characters: int = 0
    """Number of visible characters that are lost; 0 if the reader cannot tell."""


@dataclass(frozen=True)
class Reading:
    """What a reader found in one document."""

    reader: str
    """Name and version of the reader, such as 'markdown 1'. Raise the version when the same bytes give other blocks."""
    blocks: Sequence[Block]
    left_out: Sequence[LeftOut] = ()


def collapsed(text: str) -> str:
    """Return a text with every run of white space as one space, and none at its ends."""
    return " ".join(text.split())


def raised(text: str) -> str:
    """Write a superscript number in superscript digits, as in 10⁶, since plain digits would join the word before: 106."""
    return text.translate(_RAISED) if re.fullmatch(r"\s*[-+−]?[0-9]+\s*", text) else text


def row(cells: Sequence[str], headers: Sequence[str], line: int = 1, place: str = "") -> Block | None:
    """Make the block of a table row: each cell with its header, as in 'Harbour: North; Keeper: Ilse'.

    Empty cells are left out, with their headers. A cell without a header stands alone.

    Args:
        cells: The texts of the row's cells. A cell that spans several columns is given once for each of them.
        headers: The header of each column, empty where there is none. Where a column has several header cells above each other,
            they are joined by ' > '. There may be fewer headers than cells.

    Returns:
        The block, or None if all cells are empty.
    """
    parts: list[str] = []
    padded = [*headers, *[""] * (len(cells) - len(headers))]
    for header, cell in zip(padded, cells, strict=False):
        header, cell = collapsed(header), collapsed(cell)
        part = f"{header}: {cell}" if header and cell else cell
        if part and part not in parts[-1:]:  # a cell that spans columns without headers of their own
            parts.append(part)
    return Block("row", "; ".join(parts), line=line, place=place) if parts else None


def decoded(raw: bytes) -> str:
    """Decode a text file: UTF-8, or UTF-16 with its byte order mark. Line ends become '\\n'.

    Raises:
        DocumentError: The bytes are neither, or contain a NUL.
    """
    try:
        text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DocumentError("not UTF-8 text; save the file as UTF-8", raw[: error.start].count(b"\n") + 1) from None
    if "\0" in text:
        raise DocumentError("contains a NUL character, so it is no text file", text[: text.index("\0")].count("\n") + 1)
    return re.sub(r"\r\n?", "\n", text)


def visible(blocks: Iterable[Block]) -> str:
    """Return all visible characters of blocks, without white space, in order; tests compare this with the source."""
    return "".join("".join(block.text.split()) for block in blocks)
