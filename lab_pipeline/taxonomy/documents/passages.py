"""Markdown into passages: runs of whole paragraphs under one heading, with the span of the source they came from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from lab_pipeline.taxonomy.documents.repository import Document
from lab_pipeline.text.sentences import sentences

PASSAGE_WORDS = 120
"""Paragraphs are gathered until a passage would pass this length; a longer paragraph is split between sentences."""


@dataclass(frozen=True)
class Passage:
    """Plain text of one stretch of a document."""

    document: str
    commit: str
    heading: str
    """Headings above the passage, outermost first, joined by ' > '."""
    start: int
    end: int
    """Span of the source text, in characters, whole lines."""
    text: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def passages_of(made: dict[str, Any], source: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The passage that a row was made from; the pieces of one long paragraph share a span, and differ in their text."""
    for passage in source["passages"]:
        spanned = (passage["document"], passage["start"], passage["end"])
        if spanned == (made["document"], made["span_start"], made["span_end"]) and made["support"] in passage["text"]:
            yield passage


def passages(document: Document) -> list[Passage]:
    """Cut a document into passages of about `PASSAGE_WORDS` words that never cross a heading."""
    # Lines as Markdown has them: str.splitlines would also break at form feeds and the like.
    line_starts = [0, *(match.end() for match in re.finditer(r"\r\n?|\n", document.text)), len(document.text)]

    found: list[Passage] = []
    pending: list[tuple[int, int, str]] = []

    def flush(heading: str) -> None:
        if pending:
            start, end = line_starts[pending[0][0]], line_starts[min(pending[-1][1], len(line_starts) - 1)]
            text = " ".join(text for _, _, text in pending)
            found.append(Passage(document.path, document.commit, heading, start, end, text))
            pending.clear()

    headings: dict[int, str] = {}
    heading = ""
    for block in _blocks(document.text):
        if block.level:
            flush(heading)
            headings = {level: text for level, text in headings.items() if level < block.level} | {block.level: block.text}
            heading = " > ".join(text for _, text in sorted(headings.items()))
            continue
        for piece in _pieces(block.text):
            if pending and sum(len(text.split()) for _, _, text in pending) + len(piece.split()) > PASSAGE_WORDS:
                flush(heading)
            pending.append((block.first_line, block.last_line, piece))
    flush(heading)
    return found


@dataclass(frozen=True)
class _Block:
    level: int
    """Level of a heading, 0 for other text."""
    first_line: int
    last_line: int
    text: str


def _blocks(markdown: str) -> list[_Block]:
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    blocks: list[_Block] = []
    level = 0
    lines = (0, 0)
    for token in tokens:
        if token.type == "heading_open":
            level = int(token.tag[1:])
        elif token.type == "heading_close":
            level = 0
        lines = (token.map[0], token.map[1]) if token.map else lines
        if token.type == "inline":
            text = " ".join(_plain(token).split())
            if text:
                blocks.append(_Block(level, *lines, text))
    return blocks


def _plain(inline: Token) -> str:
    words = []
    for child in inline.children or []:
        if child.type in ("text", "code_inline"):
            words.append(child.content)
        elif child.type in ("softbreak", "hardbreak"):
            words.append(" ")
    return "".join(words)


def _pieces(text: str) -> list[str]:
    if len(text.split()) <= PASSAGE_WORDS:
        return [text]
    pieces: list[str] = []
    for sentence in sentences(text):
        if pieces and len(pieces[-1].split()) + len(sentence.split()) <= PASSAGE_WORDS:
            pieces[-1] += " " + sentence
        else:
            pieces.append(sentence)
    return pieces
