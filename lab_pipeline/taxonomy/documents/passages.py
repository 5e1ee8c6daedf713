"""Split Markdown into passages: plain text of the paragraphs under one heading, with their span in the source."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from markdown_it import MarkdownIt

from lab_pipeline.core.rows import FrozenLeaf, GeneratedRow, Passage
from lab_pipeline.taxonomy.documents.repository import Document
from lab_pipeline.text.sentences import sentences

PASSAGE_WORDS = 120
"""Maximum number of words in a passage; a longer paragraph is split between sentences. Only a single sentence may be longer."""


def passages_of(row: GeneratedRow, source: FrozenLeaf) -> Iterator[Passage]:
    """Yield those passages of a leaf that a row was written from: they have the row's document and span, and hold its support.

    The span alone is not enough, because all parts of a split paragraph have the same span. Skill rows give none.
    """
    for passage in source["passages"]:
        span = (passage["document"], passage["start"], passage["end"])
        if span == (row["document"], row["span_start"], row["span_end"]) and (row["support"] or "") in passage["text"]:
            yield passage


def passages(document: Document) -> list[Passage]:
    """Split a Markdown document into passages in its order, each of up to `PASSAGE_WORDS` words below one heading.

    A passage's text is plain, without markup; headings are not part of it. Its span is that of whole lines in the source.
    """
    # Count lines as Markdown does: str.splitlines would also split at form feeds and similar characters.
    line_starts = [0, *(match.end() for match in re.finditer(r"\r\n?|\n", document.text)), len(document.text)]

    found: list[Passage] = []
    pending: list[tuple[_Block, str]] = []

    def flush(heading: str) -> None:
        if pending:
            start = line_starts[pending[0][0].first_line]
            end = line_starts[min(pending[-1][0].last_line, len(line_starts) - 1)]
            text = " ".join(chunk for _, chunk in pending)
            path, commit = document.path, document.commit
            found.append(Passage(document=path, commit=commit, heading=heading, start=start, end=end, text=text))
            pending.clear()

    headings: dict[int, str] = {}
    heading = ""
    for block in _blocks(document.text):
        if block.level:
            flush(heading)
            headings = {level: text for level, text in headings.items() if level < block.level} | {block.level: block.text}
            heading = " > ".join(text for _, text in sorted(headings.items()))
            continue
        for chunk in _chunks(block.text):
            if sum(len(text.split()) for _, text in pending) + len(chunk.split()) > PASSAGE_WORDS:
                flush(heading)
            pending.append((block, chunk))
    flush(heading)
    return found


@dataclass(frozen=True)
class _Block:
    level: int
    """Level of a heading, or 0 for other text."""
    first_line: int
    last_line: int
    text: str


def _blocks(markdown: str) -> list[_Block]:
    blocks: list[_Block] = []
    level, lines = 0, (0, 0)
    for token in MarkdownIt("commonmark").enable("table").parse(markdown):
        if token.type == "heading_open":
            level = int(token.tag[1:])
        elif token.type == "heading_close":
            level = 0
        lines = (token.map[0], token.map[1]) if token.map else lines
        if token.type == "inline":
            shown = [each for each in token.children or [] if each.type in ("text", "code_inline", "softbreak", "hardbreak")]
            text = " ".join("".join(" " if each.type.endswith("break") else each.content for each in shown).split())
            blocks += [_Block(level, *lines, text)] if text else []
    return blocks


def _chunks(text: str) -> list[str]:
    """Split a paragraph between sentences into chunks of at most `PASSAGE_WORDS` words; a longer sentence is one chunk."""
    if len(text.split()) <= PASSAGE_WORDS:
        return [text]
    chunks: list[str] = []
    for sentence in sentences(text):
        if chunks and len(chunks[-1].split()) + len(sentence.split()) <= PASSAGE_WORDS:
            chunks[-1] += " " + sentence
        else:
            chunks.append(sentence)
    return chunks
