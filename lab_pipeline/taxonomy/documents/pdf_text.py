"""Take the characters of a PDF page from pdfium, with their places and styles, and join them to segments of lines."""

from __future__ import annotations

import ctypes
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

from lab_pipeline.taxonomy.documents.blocks import raised
from lab_pipeline.taxonomy.documents.pdf_layout import Segment

_BOLD = re.compile(rb"bold|black|heavy|demi|cmbx", re.IGNORECASE)
_PRESENTATION_FORMS = re.compile(r"[\ufb00-\ufdff\ufe70-\ufefc]")
_UNREADABLE = re.compile(r"[\0-\x1f\x7f-\x9f\ue000-\uf8ff\ufffd-\uffff]")
_BULLETS = (0xF0A7, 0xF0B7, 0xF0D8, 0xF0FC)
"""Bullets of Symbol and Wingdings, as office programs write them."""
_LIGATURES = ("ff", "fi", "fl", "ffi", "ffl")
_TEX = (
    dict(zip(range(11, 16), _LIGATURES, strict=True))
    | dict(zip(range(27, 32), _LIGATURES, strict=True))
    | {16: "“", 17: "”", 18: "„", 21: "–", 22: "—", 136: "•", 255: "ß"}
)
"""Letters by their codes in TeX's fonts made of dots, which have neither names nor other codes."""
_ACCENTS = dict(zip("`´ˆ˜¯˘˙¨˚˝ˇ", "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c", strict=True))
_RAISED = 0.2
"""Smaller characters whose bottom is so many sizes above that of the others are raised."""


class Character(NamedTuple):
    """One character of a page."""

    text: str
    """Empty if the file does not say which letter it is."""
    box: tuple[float, float, float, float]
    """Left, bottom, right, top."""
    size: float
    """In half points, at least one of them."""
    bold: bool
    turn: int
    """Degrees counter-clockwise, 0 for upright."""


def characters(text: Any, count: int) -> Iterator[Character]:
    """Yield the characters of a page; a generated one, such as a space that is but a gap, has the style of the one before."""
    import pypdfium2.raw as pdfium

    box, matrix = pdfium.FS_RECTF(), pdfium.FS_MATRIX()
    name, flags = ctypes.create_string_buffer(200), ctypes.c_int()
    drawn, size, bold, turn = 0, 1.0, False, 0
    for index in range(count):
        code = pdfium.FPDFText_GetUnicode(text, index)
        pdfium.FPDFText_GetLooseCharBox(text, index, box)
        generated = pdfium.FPDFText_IsGenerated(text, index) == 1
        drawn_now = None if generated else pdfium.FPDFText_GetTextObject(text, index)
        address = ctypes.addressof(drawn_now.contents) if drawn_now else 0
        if address and address != drawn:  # all characters of one text object have one style
            drawn = address
            pdfium.FPDFText_GetMatrix(text, index, matrix)
            size = abs(pdfium.FPDFText_GetFontSize(text, index)) * math.hypot(matrix.c, matrix.d)
            size = max(0.5, round(size * 2) / 2) if math.isfinite(size) else 0.5
            turn = round(math.degrees(math.atan2(matrix.b, matrix.a)) / 15) * 15 % 360
            name.value = b""
            pdfium.FPDFText_GetFontInfo(text, index, name, len(name), flags)
            bold = bool(_BOLD.search(name.value))
        if not name.value and not generated and code in _TEX and pdfium.FPDFText_HasUnicodeMapError(text, index):
            letter = _TEX[code]
        elif code in _BULLETS:
            letter = "•"
        elif code in (2, 0xFFFE):  # pdfium's mark of a hyphen at the end of a line
            letter = "-"
        elif code in (9, 10, 13, 32, 0xA0):
            letter = " "
        else:
            letter = _UNREADABLE.sub("", chr(code)) if code < 0x110000 else ""
        corners = (box.left, box.bottom, box.right, box.top)
        if (generated and not letter) or not all(map(math.isfinite, corners)):
            continue
        yield Character(letter, corners, size, bold, turn)


def turned(box: tuple[float, float, float, float], turn: int) -> tuple[float, float, float, float]:
    """Return the box that a box on a page becomes when the page is turned so that its text stands upright."""
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    x = [a * cos + b * sin for a in box[::2] for b in box[1::2]]
    y = [b * cos - a * sin for a in box[::2] for b in box[1::2]]
    return min(x), min(y), max(x), max(y)


def segments_of(found: list[Character]) -> Iterator[Segment]:
    """Join characters to segments: those that follow each other on one line, without a gap wider than their size."""
    run: list[Character] = []
    for each in found:
        if each.text == " ":
            if run and run[-1].text != " ":
                run.append(each._replace(box=run[-1].box))
            continue
        if run and not _follows(run[-1], each):
            yield segment_of(run)
            run = []
        run.append(each)
    if run:
        yield segment_of(run)


def _follows(before: Character, after: Character) -> bool:
    """Tell whether a character stands on the same line as the one before, as also an exponent does, and near it."""
    apart = max(after.box[0] - before.box[2], before.box[0] - after.box[2])
    middles = (before.box[1] + before.box[3]) / 2, (after.box[1] + after.box[3]) / 2
    size = max(before.size, after.size)
    return abs(middles[0] - middles[1]) < 0.6 * size and apart < size


def segment_of(run: list[Character]) -> Segment:
    """Make the segment of characters that follow each other, with its ligatures spelled out and raised numbers kept raised."""
    run = list(_with_accents(run))
    sizes = Counter(each.size for each in run)
    size = max(sizes, key=lambda each: (sizes[each], each))
    main = [each.box for each in run if each.size == size]
    bottom = min(box[1] for box in main)
    text = ""
    for is_raised, group in groupby(run, lambda each: each.size < size and each.box[1] > bottom + _RAISED * size):
        part = "".join(each.text for each in group)
        text += raised(part) if is_raised else part
    text = _PRESENTATION_FORMS.sub(lambda form: unicodedata.normalize("NFKC", form.group()), text)
    text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")  # pdfium gives emoji as two halves
    return Segment(
        text.strip(),
        left=min(each.box[0] for each in run),
        right=max(each.box[2] for each in run),
        bottom=bottom,
        top=max(box[3] for box in main),
        size=size,
        bold=sum(each.bold for each in run) > 0.9 * len(run),
    )


def _with_accents(run: list[Character]) -> Iterator[Character]:
    """Put each accent onto the letter that it stands above, because TeX draws the two one after the other."""
    accent: Character | None = None
    for each in run:
        if accent and min(accent.box[2], each.box[2]) - max(accent.box[0], each.box[0]) > (each.box[2] - each.box[0]) / 2:
            letter = each.text.replace("ı", "i") + _ACCENTS[accent.text]
            accent, each = None, each._replace(text=unicodedata.normalize("NFC", letter))
        if accent:
            yield accent
        accent = each if each.text in _ACCENTS else None
        if not accent:
            yield each
    if accent:
        yield accent
