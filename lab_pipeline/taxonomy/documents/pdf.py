"""Read PDF with pdfium: headings, paragraphs and list items in reading order, without running headers and page numbers.

A PDF says where each character stands, not what it belongs to. Lines, columns, paragraphs and headings are concluded from
positions and sizes (`pdf_layout`). Tables are not told from other text: the words of each row come from left to right.
Text that is drawn but invisible is kept, because OCR puts its text so over a scan.
"""

from __future__ import annotations

import ctypes
import re
import threading
import zlib
from collections import Counter
from typing import Any

from lab_pipeline.taxonomy.documents.blocks import DocumentError, LeftOut, Reading
from lab_pipeline.taxonomy.documents.pdf_layout import Page, Segment, blocks_of
from lab_pipeline.taxonomy.documents.pdf_repeated import without_repeated
from lab_pipeline.taxonomy.documents.pdf_text import characters, segments_of, turned

READER = "pdf 1"

MAX_BYTES = 100_000_000
MAX_PAGES = 5_000
MAX_PAGE_CHARACTERS = 200_000
"""A densely printed newspaper page has about 50,000."""
MAX_CHARACTERS = 20_000_000
"""Maximum number of characters of a document, which take about two minutes."""
MAX_UNFOLDED_BYTES = 200_000_000
"""Maximum size of all streams after decompression. One stream may grow 1000-fold, and pdfium would unfold it in memory."""

_PASSWORD_ERROR = 4  # FPDF_ERR_PASSWORD
_LINK, _POPUP = 2, 16  # subtypes of annotations that show no text of their own
_PATH, _IMAGE, _FORM = 2, 3, 5  # kinds of page objects
_MAX_OBJECTS = 10_000
_MAX_DOTS = 200  # a page with more of them is a plot
_LOCK = threading.Lock()  # pdfium must not be called by two threads at once


def read(raw: bytes) -> Reading:
    """Read a PDF file.

    Raises:
        DocumentError: The file is no PDF or damaged, has a password, has no text because it is a scan, or is too large.
    """
    if len(raw) > MAX_BYTES:
        raise DocumentError(f"is larger than {MAX_BYTES // 1_000_000} MB")
    _check_streams(raw)
    with _LOCK:
        pages, left_out = _pages(raw)
    if not any(page.segments for page in pages):
        raise DocumentError("has no text: it is a scan; run OCR over it first")
    pages, repeated = without_repeated(pages)
    if repeated:
        left_out.append(LeftOut("headers, footers and numbers of pages", characters=repeated))
    return Reading(READER, blocks_of(pages), left_out)


def _check_streams(raw: bytes) -> None:
    """Raise for streams that unfold to too much; they are unfolded piece by piece, and nothing is kept.

    Streams that are encrypted or in another compression than Flate are not looked into.
    """
    total = 0
    for match in re.finditer(rb"(?<!end)stream\r?\n", raw):
        inflater, data = zlib.decompressobj(), raw[match.end() : match.end() + 65536]
        at = match.end() + len(data)
        beginning = b""
        try:
            while data and not inflater.eof:
                piece = inflater.decompress(data, 1_000_000)
                beginning = beginning or piece[:65536]
                total += len(piece)
                if total > MAX_UNFOLDED_BYTES:
                    raise DocumentError(f"unfolds to more than {MAX_UNFOLDED_BYTES // 1_000_000} MB")
                data = inflater.unconsumed_tail
                if not data:
                    data = raw[at : at + 65536]
                    at += len(data)
        except zlib.error:
            pass  # not in this compression, or damaged: what was unfolded before has been counted
        if _inflates(beginning):
            raise DocumentError("has a stream that is compressed twice")


def _inflates(data: bytes) -> bool:
    try:
        return len(zlib.decompressobj().decompress(data, 1000)) == 1000
    except zlib.error:
        return False


def _pages(raw: bytes) -> tuple[list[Page], list[LeftOut]]:
    """Return the text of each page, and what of the pages is no text. All of pdfium is closed again."""
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(raw)
    except pypdfium2.PdfiumError as error:
        if error.err_code == _PASSWORD_ERROR:
            raise DocumentError("is protected by a password; save it without one") from None
        raise DocumentError("is not a PDF file, or is damaged") from None
    pages, left_out, totals = [], [], Counter[str]()
    with document:
        if len(document) > MAX_PAGES:
            raise DocumentError(f"has more than {MAX_PAGES} pages; split it")
        for number in range(1, len(document) + 1):
            try:
                page = document[number - 1]
                try:
                    segments, has_picture = _read_page(page, totals)
                finally:
                    page.close()  # with its text
            except pypdfium2.PdfiumError:
                raise DocumentError(f"is damaged: page {number} cannot be read") from None
            pages.append(Page(f"page {number}", segments))
            if has_picture and not segments:
                left_out.append(LeftOut(f"page {number} is a picture without text (a scan)", place=f"page {number}"))
            if totals["read"] > MAX_CHARACTERS:
                raise DocumentError(f"has more than {MAX_CHARACTERS} characters; split it")
    for name in ("letters that the file does not name", "characters of turned text", "characters on overfull pages"):
        if totals[name]:
            left_out.append(LeftOut(f"{totals[name]} {name}", characters=totals[name]))
    if totals["annotations"]:
        left_out.append(LeftOut(f"{totals['annotations']} annotations or form fields"))
    return pages, left_out


def _read_page(page: Any, totals: Counter[str]) -> tuple[list[Segment], bool]:
    """Return a page's segments and whether it has pictures; add to `totals` what is left out of it."""
    import pypdfium2.raw as pdfium

    left, bottom, right, top = page.get_bbox()
    text = page.get_textpage()
    count = text.count_chars()
    totals["characters on overfull pages"] += max(0, count - MAX_PAGE_CHARACTERS)
    totals["read"] += count
    found = list(characters(text, min(count, MAX_PAGE_CHARACTERS)))
    turns = Counter(each.turn for each in found if each.text != " ")
    turn = turns.most_common(1)[0][0] if turns else 0
    shown = []
    for each in found:
        box = each.box
        if box[2] <= left or box[0] >= right or box[3] <= bottom or box[1] >= top:
            continue  # beside the page, so nobody sees it
        if each.turn != turn:
            totals["characters of turned text"] += each.text != " "
        elif not each.text:
            totals["letters that the file does not name"] += 1
        else:
            shown.append(each._replace(box=turned(box, turn)) if turn else each)
    for number in range(min(pdfium.FPDFPage_GetAnnotCount(page), _MAX_OBJECTS)):
        annotation = pdfium.FPDFPage_GetAnnot(page, number)
        if annotation:
            totals["annotations"] += pdfium.FPDFAnnot_GetSubtype(annotation) not in (_LINK, _POPUP)
            pdfium.FPDFPage_CloseAnnot(annotation)
    objects = [pdfium.FPDFPage_GetObject(page, each) for each in range(min(pdfium.FPDFPage_CountObjects(page), _MAX_OBJECTS))]
    has_picture = any(pdfium.FPDFPageObj_GetType(each) in (_IMAGE, _FORM) for each in objects)
    return _with_bullets([each for each in segments_of(shown) if each.text], [] if turn else _dots(objects)), has_picture


def _dots(objects: list[Any]) -> list[tuple[float, float, float, float]]:
    """Return the boxes of small figures as wide as high: browsers draw the bullets of lists so, instead of writing them."""
    import pypdfium2.raw as pdfium

    found = []
    for each in objects:
        if pdfium.FPDFPageObj_GetType(each) == _PATH:
            left, bottom, right, top = (ctypes.c_float() for _ in range(4))
            pdfium.FPDFPageObj_GetBounds(each, left, bottom, right, top)
            width, height = right.value - left.value, top.value - bottom.value
            if 1.5 < width < 8 and abs(width - height) < 0.5:
                found.append((left.value, bottom.value, right.value, top.value))
    return found if len(found) < _MAX_DOTS else []


def _with_bullets(segments: list[Segment], dots: list[tuple[float, float, float, float]]) -> list[Segment]:
    """Put a bullet before each segment that has a dot on its left."""
    found = []
    for segment in segments:
        for left, bottom, right, top in dots:
            if segment.bottom < (bottom + top) / 2 < segment.top and 0 < segment.left - right < 2 * segment.size:
                segment = segment._replace(text=f"• {segment.text}", left=left)
                break
        found.append(segment)
    return found
