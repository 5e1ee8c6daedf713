"""Read plain text: every character stays, and nothing in it is markup."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from lab_pipeline.taxonomy.documents.blocks import Block, Reading, collapsed, decoded
from lab_pipeline.text.words import SPACELESS

READER = "text 1"

_MARK = re.compile(r"\s*(?:(?:[-*+•o]|\(?\w{1,3}[.)])\s+)?")
"""Indentation of a line, and the mark of a list item."""
_STARTS_ANEW = re.compile(r"\s*(?:[-*•+|#>]|\(?\w{1,3}[.)]\s|[\W_]+$)")
"""The beginning of a line that people do not wrap into: a list item, a row of a drawn table, a ruled line."""
_COLUMNS = re.compile(r"\S(?:\t| {3,})\s*\S|(?:[,;|][^\s,;|]+){3}")
"""Cells beside each other."""
_NARROW, _WIDE = 30, 50
"""No text is wrapped narrower than `_NARROW`. Lines narrower than `_WIDE` may be those of an address or a poem."""
_RAGGED = 0.6
"""A line with at least this share of the longest one's length may be wrapped by hand, if the next begins in lower case."""
_SPACELESS = re.compile(rf"[{SPACELESS}，。、；：！？]")


def read(raw: bytes) -> Reading:
    """Read a plain text file: one block for each paragraph, between blank lines.

    Inside a paragraph, lines that were wrapped by width are joined; other line breaks stay, as in lists and addresses.

    Raises:
        DocumentError: The bytes are no text (see `decoded`).
    """
    lines = decoded(raw).split("\n")
    return Reading(READER, list(_paragraphs(lines)))


def _paragraphs(lines: list[str]) -> Iterator[Block]:
    first = 0
    for number, line in enumerate([*lines, ""]):
        if not line.strip():
            if first < number:
                yield Block("text", _unwrapped(lines[first:number]), line=first + 1)
            first = number + 1


def _unwrapped(lines: list[str]) -> str:
    lines = [line.expandtabs() if line.startswith((" ", "\t")) else line for line in lines]
    width = max(len(line.rstrip()) for line in lines)
    text = collapsed(lines[0])
    for number, (before, line) in enumerate(pairwise(lines)):
        gap = "\n"
        if _is_wrapped(before, line, width, number == 0):
            gap = "" if _SPACELESS.match(text[-1]) and _SPACELESS.match(line.lstrip()) else " "
        text += gap + collapsed(line)
    return text


def _is_wrapped(before: str, line: str, width: int, is_second: bool) -> bool:
    """Say whether a line goes on where the one before ended, because its first word had no place there."""
    if width < _NARROW or _STARTS_ANEW.match(line) or _COLUMNS.search(before) or _COLUMNS.search(line):
        return False
    indent, own = (len(each) - len(each.lstrip()) for each in (line, before))
    mark = _MARK.match(before)
    word = line.split(maxsplit=1)[0]
    return (
        (indent in (own, mark.end() if mark else own) or (is_second and indent < own))
        and len(before.rstrip()) + len(word) >= width * (_RAGGED if word[0].islower() else 1)
        and (width >= _WIDE or not (word[0].isupper() or word[0].isdigit()))
    )
