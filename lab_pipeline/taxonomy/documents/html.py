"""Read HTML: its main content as blocks, and how much visible text the navigation and other furniture around it has."""

from __future__ import annotations

import re

from lxml import etree

from lab_pipeline.taxonomy.documents.blocks import (
    Block,
    DocumentError,
    Kind,
    LeftOut,
    Reading,
    collapsed,
    raised,
    visible,
)
from lab_pipeline.taxonomy.documents.html_elements import BLOCKS, furniture, is_hidden, is_note, visible_text
from lab_pipeline.taxonomy.documents.html_encoding import decoded_html
from lab_pipeline.taxonomy.documents.html_tables import Row, cell_of, is_layout, table_rows

READER = "html 1"

_CONTROLS = frozenset("button input select textarea".split())
_EMBEDDED = frozenset("audio canvas embed iframe object video".split())
_HEADINGS = frozenset("h1 h2 h3 h4 h5 h6".split())
_CODE = frozenset("listing plaintext pre xmp".split())
_SIGNS = {"msup": "^", "msub": "_", "mfrac": "/"}

_BLOCK_END = re.compile(rf"(</(?:{'|'.join(sorted(BLOCKS))})\s*>)", re.I)
_BODY_END = re.compile(r"</(?:body|html)\s*>", re.I)


def read(raw: bytes) -> Reading:
    """Read an HTML file. Nothing that it links to is opened.

    Raises:
        DocumentError: It is not text in the encoding that it names (UTF-8 if none), or see `blocks_of_html`.
    """
    return blocks_of_html(decoded_html(raw))


def blocks_of_html(html: str, first_line: int = 1) -> Reading:
    """Read HTML, a document or a part of one, such as an HTML block in Markdown.

    If one `<main>` or `<article>` has most of the visible text, only that is read, after the page's `<h1>` if it has none.

    Args:
        html: The source.
        first_line: The line at which the source begins in its file.

    Raises:
        DocumentError: It nests elements more than 250 levels deep, or its tables repeat cells and headers beyond all bounds.
    """
    # The parser would drop all that follows </body>, and glue what stands at both sides of an end tag without a start tag.
    source = _BLOCK_END.sub(r"\1 ", _BODY_END.sub(" ", html)).encode("utf-8", "replace")
    parser = etree.HTMLParser(encoding="utf-8", no_network=True, huge_tree=False)
    root = etree.fromstring(source, parser)
    for entry in parser.error_log:
        if entry.level == etree.ErrorLevels.FATAL:
            raise DocumentError("cannot be read as HTML: its elements nest too deeply", first_line + entry.line - 1)
    if root is None:
        return Reading(READER, [])
    page = _Walk(root, first_line)
    for candidate in filter(_may_be_main, root.iter(etree.Element)):
        if any(_may_be_main(parent) for parent in candidate.iterancestors()):
            continue
        main = _Walk(candidate, first_line)
        outside = page.characters - main.characters
        if 0 < outside < page.characters / 2:
            titles = [block for block in page.blocks if block.level == 1 and block.kind == "heading"][:1]
            if any(block.kind == "heading" and block.level == 1 for block in main.blocks):
                titles = []
            outside -= len(visible(titles))
            left_out = [LeftOut("text outside the main content", line=first_line, characters=outside)] if outside else []
            return Reading(READER, [*titles, *main.blocks], [*left_out, *page.left_out])
    return Reading(READER, page.blocks, page.left_out)


def _may_be_main(element: etree._Element) -> bool:
    return element.tag in ("main", "article") or element.get("role") == "main"


class _Walk:
    """Walk over an element from start to end, without recursion, and gather its blocks."""

    def __init__(self, root: etree._Element, first_line: int) -> None:
        self.blocks: list[Block] = []
        self.left_out: list[LeftOut] = []
        self.offset = first_line - 1
        self.line = first_line
        self.parts: list[str] = []
        """The text of the block that is open."""
        self.start = 0
        """Line at which its first visible character stands; 0 if there is none yet."""
        self.characters = 0
        """Number of visible characters that were kept, without the marks of lists and the like."""
        self.contexts: list[tuple[Kind, int]] = [("text", 0)]
        """Kind and level of the text in each block element that is open."""
        self.lists: list[int | None] = []
        """Number of the next item of each list that is open; None in a list without numbers."""
        self.mark = ""
        """Bullet or number that the next block begins with."""
        self.term: Block | None = None
        """A term that waits for its definition."""
        self.tables: list[list[Row] | None] = []
        """The rows of each table that is open; None for a table that only lays out the page."""
        self.around: list[tuple[list[Block], list[int | None], str]] = []
        """Blocks, lists and mark around each table cell that is open."""
        self.counted: dict[str, list[int]] = {}
        """Number, first line and characters of what is left out here and there."""

        walk = etree.iterwalk(root, events=("start", "end", "comment", "pi"))
        skipped: etree._Element | None = None
        for event, element in walk:
            if event == "start":
                self.line = max(self.line, (element.sourceline or 1) + self.offset)  # the parser counts to 65,535 only
                if self._is_left_out(element):
                    skipped = element
                    walk.skip_subtree()
                else:
                    self._open(element)
                    self._add(element.text)
                continue
            if event == "end" and element is not skipped:
                self._close(element)
            if element is not root:
                self._add(element.tail)
        self._flush()
        for what, (number, line, characters) in self.counted.items():
            what = what if number > 1 else re.sub(r"s\b", "", what)
            self.left_out.append(LeftOut(f"{number} {what}", line, "", characters))

    def _add(self, text: str | None) -> None:
        """Add text to the block that is open."""
        if text:
            if self.start == 0 and text.strip():
                self.start = self.line + text[: len(text) - len(text.lstrip())].count("\n")
            self.line += text.count("\n")
            self.characters += len("".join(text.split()))
            self.parts.append(text)

    def _flush(self) -> None:
        """End the block that is open, if it has text."""
        (kind, level), text = self.contexts[-1], "".join(self.parts)
        self.parts.clear()
        # Code keeps its lines; elsewhere a soft hyphen shows only at the end of a line.
        text = re.sub(r"\A(?:[ \t]*\n)+|\s+\Z", "", text) if kind == "code" else collapsed(text.replace("\xad", ""))
        start, self.start = self.start, 0
        if not text:
            return
        if self.term and self.blocks and self.blocks[-1] is self.term and kind == self.term.kind:
            text, start = f"{self.blocks.pop().text}: {text}", self.term.line
        elif self.mark and kind in ("item", "note"):
            text, self.mark = f"{self.mark} {text}", ""
        self.blocks.append(Block(kind, text, level, start))

    def _boundary(self) -> None:
        """Keep what comes before and after the edge of a block element apart. Headings and code go on across it."""
        kind = self.contexts[-1][0]
        if kind in ("heading", "code"):
            self.parts.append("\n" if self.parts and not self.parts[-1].endswith("\n") else "")
        else:
            self._flush()

    def _open(self, element: etree._Element) -> None:
        tag = str(element.tag)
        parent = element.getparent()
        if tag == "br":
            self.parts.append("\n")
        elif parent is not None and parent.tag in _SIGNS and element.getprevious() is not None:
            self.parts.append(_SIGNS[parent.tag])
        if tag not in BLOCKS:
            return
        kind, level = self.contexts[-1]
        if tag in _HEADINGS:
            self._flush()
            kind, level = "heading", int(tag[1])
        elif tag in _CODE and kind != "heading":
            self._flush()
            kind, level = "code", 0
        else:
            self._boundary()
        if tag in ("caption", "figcaption") or is_note(element):
            kind, level = "note", 0
        if tag in ("ul", "ol", "menu", "dir"):
            self.lists.append(_number(element.get("start"), 1) if tag == "ol" else None)
        elif tag == "li":
            kind, level = ("note", 0) if kind == "note" else ("item", max(len(self.lists), 1))
            self.mark = self._next_mark(element)
        elif tag == "dt":
            self.term = None
        elif tag == "table":
            self.tables.append(None if is_layout(element) else [])
        elif self.tables and (rows := self.tables[-1]) is not None:
            if tag == "tr":
                rows.append(Row(self.line, parent, parent is not None and parent.tag == "thead"))
            elif tag in ("td", "th"):
                self.around.append((self.blocks, self.lists, self.mark))
                self.blocks, self.lists, self.mark = [], [], ""
                kind, level = "text", 0
        self.contexts.append((kind, level))

    def _next_mark(self, item: etree._Element) -> str:
        if not self.lists or self.lists[-1] is None:
            return "-"
        number = _number(item.get("value"), self.lists[-1])
        self.lists[-1] = number + 1
        return f"{number}."

    def _close(self, element: etree._Element) -> None:
        tag = str(element.tag)
        if tag not in BLOCKS:
            return
        before = len(self.blocks)
        if tag in _HEADINGS or tag in _CODE:
            self._flush()
        else:
            self._boundary()
        self.contexts.pop()
        if tag in ("ul", "ol", "menu", "dir"):
            self.lists.pop()
        elif tag == "li":
            self.mark = ""
        elif tag == "dt" and len(self.blocks) > before:
            self.term = self.blocks[-1]
        elif tag == "dl":
            self.term = None
        elif tag == "table":
            self.blocks += table_rows(self.tables.pop() or [])
        elif tag in ("td", "th") and self.tables and (rows := self.tables[-1]) is not None:
            cell = cell_of(element, collapsed(" ".join(block.text for block in self.blocks)))
            self.blocks, self.lists, self.mark = self.around.pop()
            if not rows:
                rows.append(Row(self.line))
            rows[-1].cells.append(cell)

    def _is_left_out(self, element: etree._Element) -> bool:
        """Say whether to skip an element; if it is visible, note that it is left out, or the words that stand for it."""
        tag = str(element.tag)
        if is_hidden(element):
            return True
        if what := furniture(element):
            self._boundary()
            text = visible_text(element)
            heading = next(element.iter("h1"), None) if what == "page header" else None
            title = visible_text(heading) if heading is not None else ""
            if heading is not None and title.strip():  # the title of the page often stands in its header
                self.blocks.append(Block("heading", collapsed(title), 1, (heading.sourceline or 1) + self.offset))
                self.characters += len("".join(title.split()))
                text = text.replace(title, "", 1)
            if characters := len("".join(text.split())):
                self.left_out.append(LeftOut(what, self.line, "", characters))
            return True
        if tag in _CONTROLS:
            self._count("form controls", visible_text(element) + element.get("value", ""))
            return True
        if tag in _EMBEDDED:
            self._count("embedded pages, recordings or drawings")
            return True
        if tag in ("img", "svg"):
            texts = (
                [collapsed("".join(each.itertext())) for each in element.iter("title", "desc", "text")] if tag == "svg" else []
            )
            words = element.get("alt") or element.get("aria-label") or " ".join(filter(None, texts))
            if words.strip():
                self._add(f"[{collapsed(words)}]")
            elif element.get("alt") is None:  # an empty one says that the picture is only for decoration
                self._count("pictures without alternative text")
            return True
        digits = collapsed(visible_text(element)) if tag == "sup" else ""
        if re.fullmatch("[-+−]?[0-9]+", digits):  # a plain number would change the number or word before it
            is_reference = any(next(walk, None) is not None for walk in (element.iter("a"), element.iterancestors("a")))
            self._add(f"[{digits}]" if is_reference else raised(digits))
            return True
        return False

    def _count(self, what: str, text: str = "") -> None:
        entry = self.counted.setdefault(what, [0, self.line, 0])
        entry[0] += 1
        entry[2] += len("".join(text.split()))


def _number(text: str | None, default: int) -> int:
    """Read the number of a list item; of a hostile or wrong one, return the default."""
    return int(text) if re.fullmatch(r"\s*-?[0-9]{1,9}\s*", text or "") and text else default
