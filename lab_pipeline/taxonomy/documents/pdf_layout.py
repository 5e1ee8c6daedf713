"""Conclude from the positions of text on pages what belongs together: columns, lines, paragraphs, headings, list items."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from lab_pipeline.taxonomy.documents.blocks import Block, collapsed


class Segment(NamedTuple):
    """Text on one line without a wide gap, with its box in points; up is positive."""

    text: str
    left: float
    right: float
    bottom: float
    top: float
    size: float
    """Size of most of its characters, in half points."""
    bold: bool


@dataclass(frozen=True)
class Page:
    """All text of a page, in the order in which it is drawn."""

    place: str
    segments: list[Segment]


_MIN_COLUMN_LINES, _MIN_COLUMN_CHARACTERS = 3, 20
"""A column has at least so many lines, with so many characters on average: else it is a table's, which is read by rows."""
_MAX_COLUMN_SPLITS = 4
_WIDEST_PITCH = 2.5
"""Lines of one paragraph are at most so many sizes apart: 2.4 is double spacing."""
_SHORT = 0.25
"""A line that lacks more than this share of its column's width is not full, also where lines are not stretched."""
_MAX_HEADING, _MAX_BOLD_HEADING = 200, 120
"""Longer text is no heading, be it large or bold."""
_LARGER = 1.08
"""Headings are at least so many times as large as the body: LaTeX sets a subsection in 12 points over 10 or 11."""
_BULLET = re.compile(r"[•◦▪■●○‣⁃∙]\s*(?=\S)")
_MARKER = re.compile(r"(?:[·*–—\-]|\(?\d{1,3}[.)]|\(?[a-z]\)|\[\d{1,3}\])\s+(?=\S)")
"""Marks of list items that may as well be part of a sentence, such as the day in '12. Mai'."""
_ENDED = re.compile(r"[.!?:;…。！？][\"'”’»)\]]*$")
_HYPHEN = re.compile(r"(\w{1,60})[-\u2010\u00ad]$")
_SUSPENDED = re.compile(r"(?:und|oder|and|or)\b")
"""Words before which a hyphen at the end of a line stands for a missing part: 'Ein- und Ausgang'."""


@dataclass(frozen=True)
class _Line:
    box: Segment
    """Text and box of the whole line, with the style of its longest segment."""
    end: float
    """Right end of the widest line of its column."""
    is_table_row: bool
    place: str

    @property
    def is_open(self) -> bool:
        """Tell whether the sentence seems to go on: the line is full, and no sentence ends with it."""
        is_full = self.box.right > self.end - _SHORT * (self.end - self.box.left)
        return is_full and not self.is_table_row and not _ENDED.search(self.box.text)


def blocks_of(pages: Sequence[Page]) -> list[Block]:
    """Return the blocks of a document, in reading order."""
    lines = [line for page in pages for region in _regions(page.segments) for line in _lines(region, page.place)]
    sizes, bold = Counter[float](), Counter[float]()
    for line in lines:
        sizes[line.box.size] += len(line.box.text)
        bold[line.box.size] += len(line.box.text) * line.box.bold
    body = sizes.most_common(1)[0][0]
    body_is_bold = bold[body] > sizes[body] / 2
    words = {word.casefold() for line in lines for word in re.findall(r"\w+", _HYPHEN.sub("", line.box.text))}

    paragraphs = _paragraphs(lines, body)
    headings = [_is_heading(paragraph, body, body_is_bold) for paragraph in paragraphs]
    ranked = sorted({lines[0].box.size for lines, is_one in zip(paragraphs, headings, strict=True) if is_one}, reverse=True)
    found: list[Block] = []
    margins: list[float] = []
    bottom = 0.0
    for paragraph, is_heading in zip(paragraphs, headings, strict=True):
        first, text = paragraph[0], _joined(paragraph, words)
        if found and first.place == found[-1].place and first.box.bottom > bottom:  # the next column
            margins = []
        bottom = paragraph[-1].box.bottom
        bullet = None if first.is_table_row or is_heading else _BULLET.match(text)
        if is_heading:
            block = Block("heading", text, min(ranked.index(first.box.size) + 1, 6), place=first.place)
        elif bullet or (not first.is_table_row and _MARKER.match(text)):
            margins = [*(each for each in margins if each < first.box.left - 3), first.box.left]
            if bullet:
                text = f"- {text[bullet.end() :]}"
            text = re.sub(r"^[·*–—-]\s+", "- ", text)  # numbers stay: the text may refer to them
            block = Block("item", text, len(margins), place=first.place)
        else:
            block = Block("text", text, place=first.place)
        margins = margins if block.kind == "item" else []
        found.append(block)
    return found


def _regions(segments: list[Segment], splits: int = 0) -> Iterator[list[Segment]]:
    """Yield the parts of a page in reading order: columns from left to right, between them what stands across columns."""
    gutter = _gutter(segments) if splits < _MAX_COLUMN_SPLITS else None
    if gutter is None:
        yield segments
        return
    across: list[Segment] = []
    left: list[Segment] = []
    right: list[Segment] = []
    for segment in sorted(segments, key=_middle, reverse=True):
        if segment.left < gutter - 1 and segment.right > gutter:
            if left or right:
                yield from (*_regions(left, splits + 1), *_regions(right, splits + 1))
                left, right = [], []
            across.append(segment)
        else:
            if across:
                yield across
                across = []
            (left if segment.right <= gutter else right).append(segment)
    yield from (*_regions(left, splits + 1), *_regions(right, splits + 1))
    yield across


def _gutter(segments: list[Segment]) -> float | None:
    """Return where the right one of two columns of prose begins, or None if there are none.

    It begins where several segments begin; of those places, at the one that the least text crosses.
    """
    found: list[tuple[int, float]] = []
    for begin, count in Counter(round(segment.left) for segment in segments).most_common(10):
        left = [segment for segment in segments if segment.right <= begin]
        right = [segment for segment in segments if segment.left >= begin - 1]
        are_lists = _is_list(left) and _is_list(right)
        least = 2 if are_lists else _MIN_COLUMN_LINES
        if count < least or not (are_lists or (_is_prose(left) and _is_prose(right))):
            continue
        height = min(_top(left), _top(right)) - max(_bottom(left), _bottom(right))
        if height > least * max(left[0].size, right[0].size):
            crossing = sum(len(segment.text) for segment in segments if segment.left < begin - 1 and segment.right > begin)
            found.append((crossing, begin))
    return min(found)[1] if found else None


def _is_prose(segments: list[Segment]) -> bool:
    characters = sum(len(segment.text) for segment in segments)
    return len(segments) >= _MIN_COLUMN_LINES and characters >= _MIN_COLUMN_CHARACTERS * len(segments)


def _is_list(segments: list[Segment]) -> bool:
    bullets = sum(bool(_BULLET.match(segment.text + "x")) for segment in segments)
    return bullets > 1 and sum(len(segment.text) for segment in segments) > 3 * len(segments)  # not only bullets


def _middle(segment: Segment) -> float:
    return (segment.bottom + segment.top) / 2


def _top(segments: list[Segment]) -> float:
    return max(segment.top for segment in segments)


def _bottom(segments: list[Segment]) -> float:
    return min(segment.bottom for segment in segments)


def _lines(segments: list[Segment], place: str) -> Iterator[_Line]:
    """Yield the lines of a region from top to bottom."""
    rows: list[list[Segment]] = []
    for segment in sorted(segments, key=_middle, reverse=True):
        if rows and _middle(rows[-1][0]) - _middle(segment) < 0.5 * max(rows[-1][0].size, segment.size):
            rows[-1].append(segment)
        else:
            rows.append([segment])
    end = max((segment.right for segment in segments), default=0)
    for row in rows:
        row.sort(key=lambda segment: segment.left)
        main = max(row, key=lambda segment: len(segment.text))
        if re.match(r"[\u0590-\u08ff]", main.text):  # Hebrew or Arabic
            row.reverse()
        text, widest = row[0].text, 0.0
        for before, after in pairwise(row):
            apart = max(after.left - before.right, before.left - after.right)
            if not ((before is row[0] and _MARKER.match(before.text + " x")) or _BULLET.match(before.text + "x")):
                widest = max(widest, apart / main.size)
            text += (" " if apart > 0.15 * main.size else "") + after.text
        box = main._replace(text=text, left=min(each.left for each in row), right=max(each.right for each in row))
        yield _Line(box._replace(bold=all(each.bold for each in row)), end, widest > 2, place)


def _paragraphs(lines: list[_Line], body: float) -> list[list[_Line]]:
    """Join lines to paragraphs, by their distance, indentation and style, also over the end of a column or page."""
    pitches = Counter(
        round((before.box.bottom - after.box.bottom) / after.box.size, 1)
        for before, after in pairwise(lines)
        if before.place == after.place
        and before.box.size == after.box.size
        and 0 < before.box.bottom - after.box.bottom < _WIDEST_PITCH * after.box.size
    )
    usual = min(pitches, key=lambda pitch: (-pitches[pitch], pitch), default=1.2)
    paragraphs: list[list[_Line]] = []
    for line in lines:
        # A paragraph that goes on in the next column or on the next page may be followed by footnotes.
        notes = 0
        while notes < min(len(paragraphs), 9) and _is_note_before(paragraphs[-1 - notes][0], line):
            notes += 1
        before = paragraphs[-1 - notes] if notes < len(paragraphs) else []
        if before and _goes_on(before, line, usual, body):
            before.append(line)
        else:
            paragraphs.append([line])
    return paragraphs


def _is_note_before(note: _Line, line: _Line) -> bool:
    is_elsewhere = note.place != line.place or line.box.bottom > note.box.top
    return is_elsewhere and note.box.size < line.box.size


def _goes_on(paragraph: list[_Line], line: _Line, usual: float, body: float) -> bool:
    """Tell whether a line belongs to a paragraph; `usual` is the distance of lines, in sizes of their text."""
    first, last, box = paragraph[0].box, paragraph[-1], line.box
    size = box.size
    if last.is_table_row or line.is_table_row or abs(size - last.box.size) > 0.5 or _BULLET.match(box.text):
        return False
    if _MARKER.match(box.text) and not last.is_open:
        return False
    if last.box.bold != box.bold and (all(each.box.bold for each in paragraph) or not last.is_open):
        return False
    is_beside = box.left > last.box.right or box.right < last.box.left
    if line.place != last.place or is_beside or box.bottom >= last.box.bottom:  # the next column or page
        return last.is_open and last.box.bold == box.bold and size <= _LARGER * body
    if last.box.bottom - box.bottom > (usual + 0.25) * size:
        return False
    if _BULLET.match(first.text) or _MARKER.match(first.text):
        return box.left > first.left + 0.3 * size or last.is_open
    is_indented = box.left > last.box.left + 0.8 * size
    is_short = last.box.right < last.end - _SHORT * (last.end - last.box.left)
    return not ((is_indented or is_short) and _ENDED.search(last.box.text))


def _is_heading(paragraph: list[_Line], body: float, body_is_bold: bool) -> bool:
    box, text = paragraph[0].box, " ".join(line.box.text for line in paragraph)
    if paragraph[0].is_table_row or len(text) > _MAX_HEADING or not re.search(r"[^\W\d_]", text) or _BULLET.match(text):
        return False
    is_bold = not body_is_bold and all(line.box.bold for line in paragraph) and box.size > 0.95 * body
    return box.size > _LARGER * body or (is_bold and len(text) <= _MAX_BOLD_HEADING and not re.search(r"[.,;:]$", text))


def _joined(lines: list[_Line], words: set[str]) -> str:
    """Join a paragraph's lines. A hyphen at the end of a line goes if the joined word occurs in the document's `words`."""
    parts: list[str] = []
    for line in lines:
        hyphen, begin = _HYPHEN.search(parts[-1]) if parts else None, re.match(r"\w+", line.box.text)
        if hyphen and begin and not _SUSPENDED.match(line.box.text):
            if (hyphen[1] + begin[0]).casefold() in words:
                parts[-1] = parts[-1][: hyphen.end(1)]
        else:
            parts.append(" ")
        parts.append(line.box.text)
    return collapsed("".join(parts))
