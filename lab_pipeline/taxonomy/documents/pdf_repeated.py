"""Take the headers, footers and numbers of pages out of the text of a PDF."""

from __future__ import annotations

import re
from collections import Counter

from lab_pipeline.taxonomy.documents.pdf_layout import Page, Segment

_OUTER_ROWS = 3
"""Running headers and footers are looked for in so many rows at the top and the bottom of a page."""


def without_repeated(pages: list[Page]) -> tuple[list[Page], int]:
    """Take out the lines that stand at the same height of most pages with the same text up to numbers.

    Such a line is among the outer `_OUTER_ROWS` rows of at least half of the pages, if there are three or more: headers may
    differ between left and right pages. The number of a page also goes where it stands alone below it.

    Returns:
        The pages, and the number of characters taken out.
    """
    outer = [_outer(page.segments) for page in pages]
    counts = Counter(key for keys in outer for key in set(keys.values()))
    running = {key for key, count in counts.items() if len(pages) > 2 and count >= max(2, len(pages) // 2)}
    kept, characters = [], 0
    for page, keys in zip(pages, outer, strict=True):
        out = {segment for segment, key in keys.items() if key in running} | _number(page)
        kept.append(Page(page.place, [segment for segment in page.segments if segment not in out]))
        characters += sum(len("".join(segment.text.split())) for segment in page.segments if segment in out)
    return kept, characters


def _outer(segments: list[Segment]) -> dict[Segment, tuple[str, int]]:
    """Return text and height of the segments in a page's outer rows, numbers in the text (also Roman ones) as '#'."""
    heights = sorted({round(segment.bottom) for segment in segments})
    outer = {*heights[:_OUTER_ROWS], *heights[-_OUTER_ROWS:]}
    return {
        segment: (re.sub(r"\d+|\b[ivxlc]+\b", "#", segment.text), round(segment.bottom))
        for segment in segments
        if round(segment.bottom) in outer
    }


def _number(page: Page) -> set[Segment]:
    """Return the page's number if it is the whole last line."""
    last = min(page.segments, key=lambda segment: segment.bottom, default=None)
    alone = last and sum(segment.bottom < last.top for segment in page.segments) == 1
    return {last} if last and alone and last.text.strip("-–— ") == page.place.rpartition(" ")[2] else set()
