"""Read a document with the reader of its format, and join its blocks to the normalised text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from itertools import pairwise
from pathlib import PurePosixPath

from lab_pipeline.taxonomy.documents.apart import read_apart
from lab_pipeline.taxonomy.documents.blocks import Block, DocumentError, LeftOut, decoded
from lab_pipeline.taxonomy.problem import Problem

_FORMATS = {
    ".md": "markdown",
    ".markdown": "markdown",
    ".txt": "plain",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".docx": "docx",
    ".pptx": "pptx",
    ".pdf": "pdf",
}
"""The module with the reader of each format, by the file name's ending in lower case."""
_WITH_LINES = ("markdown", "plain", "html")

_POINTERS = {
    b"version https://git-lfs.github.com/spec/": "a pointer of Git LFS",
    b"/annex/objects/": "a pointer of git-annex",
}
_SIGNATURES = {
    b"%pdf-": ("a PDF file", "pdf"),
    b"pk\3\4": ("an archive such as .docx or .pptx", "docx pptx"),
    b"{\\rtf": ("an RTF file", ""),
    b"<!doctype html": ("an HTML page", "html"),
    b"<html": ("an HTML page", "html"),
}
"""How files of some formats begin, in lower case, and the readers that take them."""


@dataclass(frozen=True)
class Document:
    """One document of a leaf, as its reader found it."""

    path: str
    """Path in its repository."""
    commit: str
    """Full commit id, or `worktree:<hash of the bytes>` for a plain folder."""
    reader: str
    """Name and version of the reader."""
    blocks: Sequence[Block]
    left_out: Sequence[LeftOut] = ()
    lines: Sequence[str] = ()
    """The lines of the source; none in a format without lines."""

    @cached_property
    def text(self) -> str:
        """The normalised text: the texts of all blocks, in order. Rows of a table and items of a list are on lines of their
        own, and blank lines stand between other blocks."""
        return "".join(text for block, gap in self._joined for text in (gap, block.text))

    @cached_property
    def starts(self) -> list[int]:
        """Where each block begins in the normalised text, in characters."""
        found, at = [], 0
        for block, gap in self._joined:
            found.append(at + len(gap))
            at += len(gap) + len(block.text)
        return found

    @property
    def _joined(self) -> list[tuple[Block, str]]:
        gaps = [
            "\n" if one.kind == other.kind and one.kind in ("row", "item") else "\n\n" for one, other in pairwise(self.blocks)
        ]
        return list(zip(self.blocks, ["", *gaps], strict=False))

    def place(self, block: Block) -> str:
        """Return where people find a block: its page or slide, its line in formats that have lines, else ''."""
        return block.place or (f"line {block.line}" if self.lines else "")


def is_readable(path: str) -> bool:
    """Tell whether there is a reader for a file, by the ending of its name in any case."""
    return _format(path) is not None


def readable_endings() -> str:
    return ", ".join(_FORMATS)


def read_document(path: str, commit: str, raw: bytes) -> Document:
    """Read the bytes of a file with the reader of its format (see `is_readable`).

    Raises:
        DocumentError: The bytes are not of that format, stand for a file that is elsewhere, or hold no text.
    """
    for start, name in _POINTERS.items():
        if raw[:200].startswith(start):
            raise DocumentError(f"is {name}, not the file itself; commit the file, or name a repository that holds it")
    module = _format(path)
    assert module is not None, f"no reader for {path}"
    head = raw[:1000].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for start, (name, readers) in _SIGNATURES.items():
        if module not in readers.split() and head.startswith(start):
            raise DocumentError(f"is {name}, but not named as one; rename it, or save it as {PurePosixPath(path).suffix}")
    reading = read_apart(module, raw) if module == "pdf" else import_module(f"{__package__}.{module}").read(raw)
    blocks = [block for block in reading.blocks if block.text.strip()]
    lines = decoded(raw).split("\n") if module in _WITH_LINES else ()
    return Document(path, commit, reading.reader, blocks, reading.left_out, lines)


def left_out_problems(document: Document) -> Iterator[Problem]:
    """Yield a warning for each thing that the reader left out, with its share of the document's visible text."""
    if not document.blocks:
        yield Problem(document.path, 1, "warning", "holds no text", rule="document-empty")
    total = sum(len("".join(block.text.split())) for block in document.blocks)
    total += sum(each.characters for each in document.left_out)
    for each in document.left_out:
        share = f", {each.characters / total:.0%} of the text" if each.characters else ""
        place = f"{each.place}: " if each.place else ""
        yield Problem(document.path, each.line, "warning", f"{place}left out: {each.what}{share}", rule="document-left-out")


def _format(path: str) -> str | None:
    return _FORMATS.get(PurePosixPath(path).suffix.lower())
