"""Split a document into passages: stretches of its normalised text below one heading, each within a budget of tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lab_pipeline.core.rows import FrozenLeaf, GeneratedRow, Passage
from lab_pipeline.taxonomy.documents.blocks import Kind
from lab_pipeline.taxonomy.documents.reading import Document
from lab_pipeline.text.sentences import sentences
from lab_pipeline.text.words import SPACELESS

_HEADING_SHARE = 0.25
"""A heading with more than this share of the budget is no heading: it stands in a passage of its own, like a paragraph."""
_LONG = 10_000
"""A longer text is not split into sentences at once, which can take quadratic time, but first near its middle."""
_DENSE = 100
"""No token has more characters than this; so a much longer text is over its budget without being counted."""
_JOINT = 2
"""Tokens that the white space between two pieces may take, at most."""
_MARK = re.compile(r"^\s*(?:[-•*]|\d{1,2}[.)])\s+")
"""The mark of a list item, at the beginning of its line."""
_TOKEN = re.compile(rf"[a-zA-Z]{{1,5}}|[{SPACELESS}]|[^\W\d_]{{1,2}}|\S")


def estimated_tokens(text: str) -> int:
    """Estimate the number of tokens of a text, rather too many than too few, where the teacher's tokenizer is not at hand.

    A token is taken to be up to five ASCII letters of a word, two letters of other alphabets, or one other character.
    """
    return len(_TOKEN.findall(text))


@dataclass(frozen=True)
class PassageBudget:
    """How long a passage may be: `tokens`, as counted by `count`."""

    tokens: int = 180
    count: Callable[[str], int] = estimated_tokens


@dataclass(frozen=True)
class PassageBudgets:
    """Give each knowledge leaf the budget of its passages, by its flow and the teacher's tokenizer."""

    of: Callable[[str], PassageBudget] = lambda leaf: PassageBudget()
    """Returns the budget of a leaf, given by its key."""
    id: str = ""
    """Hash of all that the budgets depend on, by which a sensor sees that they changed."""


def passages_of(row: GeneratedRow, source: FrozenLeaf) -> Iterator[Passage]:
    """Yield those passages of a leaf that a row was written from: they have the row's document and span, and hold its support.

    Passages of older releases may share a span, so the span alone is not enough. Skill rows give none.
    """
    for passage in source["passages"]:
        span = (passage["document"], passage["start"], passage["end"])
        if span == (row["document"], row["span_start"], row["span_end"]) and (row["support"] or "") in passage["text"]:
            yield passage


def passage_sentences(passage: Passage, language: str | None) -> list[str]:
    """Split a passage into sentences. Each row, list item and line of code is at least one, without the mark of its item."""
    return [each for line in passage["text"].split("\n") for each in sentences(_MARK.sub("", line), language)]


def passages(document: Document, budget: PassageBudget) -> list[Passage]:
    """Split a document into passages in its order; each is a stretch of the normalised text, and none is over the budget.

    Whole blocks go into a passage while they fit and no heading comes between. A block that alone is over the budget is cut
    between its lines, else its sentences, its words, and at last its characters. A heading with no text below it is a passage.
    """
    found: list[Passage] = []
    headings: dict[int, str] = {}
    pending: list[_Piece] = []

    def flush() -> None:
        if pending:
            start, end = pending[0].start, pending[-1].end
            above = " > ".join(text for _, text in sorted(headings.items()))
            places = dict.fromkeys(place for piece in pending if (place := piece.place))
            found.append(
                Passage(
                    document=document.path,
                    commit=document.commit,
                    heading=above,
                    start=start,
                    end=end,
                    text=document.text[start:end],
                    place=_between(list(places)),
                )
            )
            pending.clear()

    blocks = list(zip(document.blocks, document.starts, strict=True))
    for index, (block, start) in enumerate(blocks):
        size = budget.count(block.text) if block.kind == "heading" else 0
        if block.kind == "heading" and size <= budget.tokens * _HEADING_SHARE:
            flush()
            headings = {level: text for level, text in headings.items() if level < block.level}
            below = blocks[index + 1][0] if index + 1 < len(blocks) else None
            if below is None or (below.kind == "heading" and below.level <= block.level):
                pending.append(_Piece(start, start + len(block.text), size, document.place(block)))
                flush()
            headings[block.level] = block.text
            continue
        for piece in _pieces(block.text, start, budget, block.kind):
            piece = _Piece(piece.start, piece.end, piece.tokens, document.place(block))
            if pending and not _fits(document.text, [*pending, piece], budget):
                flush()
            pending.append(piece)
    flush()
    return found


def _between(places: list[str]) -> str:
    """Return the places of a passage's first and last block in one: 'page 3' and 'page 4' give 'pages 3 to 4'."""
    if len(places) < 2:
        return "".join(places)
    kind, _, first = places[0].rpartition(" ")
    return f"{kind}s {first} to {places[-1].rpartition(' ')[2]}"


@dataclass(frozen=True)
class _Piece:
    start: int
    end: int
    tokens: int
    place: str = ""


def _fits(text: str, pieces: list[_Piece], budget: PassageBudget) -> bool:
    """Tell whether pieces fit into a passage together. The sum of their tokens mostly shows it without counting them again."""
    if sum(piece.tokens + _JOINT for piece in pieces) <= budget.tokens:
        return True
    return budget.count(text[pieces[0].start : pieces[-1].end]) <= budget.tokens


def _pieces(text: str, start: int, budget: PassageBudget, kind: Kind) -> Iterator[_Piece]:
    """Cut a block that begins at `start` into pieces that are within the budget each, at the coarsest borders that do. A row of
    a table is cut between cells, so that each keeps its header."""
    size = budget.count(text) if len(text) <= budget.tokens * _DENSE else budget.tokens + 1
    if size <= budget.tokens or len(text) == 1:
        yield _Piece(start, start + len(text), size)
        return
    parts = re.split(r"(?<=;) ", text) if kind == "row" else text.splitlines()
    if len(parts) < 2 and len(text) <= _LONG:
        parts = sentences(text)
    if len(parts) < 2:
        half = len(text) // 2
        end = text.find(". ", half, half + _LONG) if len(text) > _LONG else -1
        middle = end + 1 if end > 0 else text.find(" ", half, -1)
        middle = middle if middle > 0 else half
        parts = [text[:middle], text[middle:].lstrip()]
    at = 0
    for part in filter(None, map(str.strip, parts)):
        at = text.index(part, at)
        yield from _pieces(part, start + at, budget, kind)
        at += len(part)
