"""Read plain text: every character stays, and nothing in it is markup."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from lab_pipeline.taxonomy.documents.blocks import Block, Reading, collapsed, decoded

READER = "text 1"

_STARTS_ANEW = re.compile(r"\s|[-*•+|#>]|\(?\w{1,3}[.)]\s|[\W_]+$")
"""The beginning of a line that people do not wrap into: an indented line, a list item, a row of a drawn table, a ruled line."""
_WRAPPED = 0.6
"""A line with at least this share of the length of its paragraph's longest line is taken for wrapped by its width."""


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
    width = max(map(len, lines))
    text = collapsed(lines[0])
    for before, line in pairwise(lines):
        wrapped = len(before.rstrip()) >= _WRAPPED * width and not _STARTS_ANEW.match(line)
        text += (" " if wrapped else "\n") + collapsed(line)
    return text
