"""Read Markdown: CommonMark with the tables, footnotes, formulas and strikethrough of GitHub, MkDocs' admonitions, and HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache, partial

from lxml.html import defs
from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.rules_block.table import escapedSplit
from markdown_it.token import Token
from mdit_py_plugins.admon import admon_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.footnote import footnote_plugin

from lab_pipeline.taxonomy.documents.blocks import Block, DocumentError, LeftOut, Reading, decoded
from lab_pipeline.taxonomy.documents.html import blocks_of_html

READER = "markdown 1"

_FRONT_MATTER = re.compile(r"(---|\+\+\+)[ \t]*\n(.*?\n)(?:\1|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_KEY = re.compile(r"""["']?\w[\w .-]*["']?\s*[:=](?:\s|\Z)""")
_TAG = re.compile(r"<(?=/?([A-Za-z][\w-]*))")
_ELEMENTS = defs.tags | {"bdi", "data", "dialog", "main", "picture", "search", "slot", "template"}
"""The elements of HTML; the list of lxml 6 lacks some."""
_HIDING = (
    "audio|canvas|dialog|iframe|math|nav|noembed|noframes|noscript|object|plaintext|script|select|style|svg|template|textarea|"
    "title|video|xmp"
)
"""Elements of which the content is not shown, or not as text."""
_NESTING = 60
"""How deep lists, quotes and emphasis may be nested; markdown-it drops what is deeper than its limit, without a word."""


def read(raw: bytes) -> Reading:
    """Read a Markdown file. It is rendered as HTML, which `blocks_of_html` reads; each block keeps its line in the Markdown.

    Front matter (YAML between two lines `---` at the beginning) is left out. A footnote stands after the block that refers to
    it. What looks like a tag but is none of HTML's, such as `<hostname>`, is text.

    Raises:
        DocumentError: The bytes are no text (see `decoded`), or lists and quotes are nested too deeply.
    """
    text = decoded(raw)
    left_out: list[LeftOut] = []
    if front := _front_matter(text):
        left_out.append(LeftOut("front matter", characters=len("".join(front.split()))))
        text = "\n" * front.count("\n") + text[len(front) :]  # the lines below keep their numbers
    tokens = list(_whole(_parser().parse(text), text.split("\n")))
    for token in tokens:
        if token.level >= _NESTING - 2:
            raise DocumentError(
                f"lists or quotes are nested deeper than {_NESTING} levels", token.map[0] + 1 if token.map else 1
            )
    found = blocks_of_html(_without_swallowing(_rendered(tokens)))
    blocks = sorted(found.blocks, key=partial(_order, _notes(tokens)))
    return Reading(READER, blocks, [*left_out, *found.left_out])


def _front_matter(text: str) -> str:
    """Return the front matter (YAML, or TOML between lines `+++`) with its marks; '' where there is none.

    Front matter has a key on each line that is not indented and is no item or comment. It need not be valid YAML, as in
    `title: Guide: the harbour`.
    """
    found = _FRONT_MATTER.match(text)
    lines = [line for line in found[2].split("\n") if line.strip() and line[0] not in " \t#-[]{}"] if found else []
    keys = lines if text.startswith("-") else lines[:1]
    return found.group() if found and keys and all(map(_KEY.match, keys)) else ""


@cache
def _parser() -> MarkdownIt:
    return (
        MarkdownIt("commonmark", {"maxNesting": _NESTING})
        .enable(["table", "strikethrough"])
        .use(footnote_plugin, inline=False, move_to_end=False)
        .use(dollarmath_plugin, allow_labels=False, allow_space=False, allow_digits=False, double_inline=True)
        .use(admon_plugin)
    )


def _whole(tokens: Sequence[Token], lines: Sequence[str]) -> Iterator[Token]:
    """Yield the tokens with what the parser drops: cells beyond a table's columns, the kind of an admonition with a title."""
    row, cells, kind, title = 0, 0, "", ""
    for token in tokens:
        if token.type == "tr_open" and token.map:
            row, cells = token.map[0], 0
        elif token.type == "td_close":
            cells += 1
        elif token.type == "tr_close" and cells:
            source = escapedSplit(lines[row].strip("> \t"))
            for cell in filter(None, map(str.strip, source[not source[0] :][cells:])):
                yield from (Token("td_open", "td", 1), _text(cell), Token("td_close", "td", -1))
        yield token
        if token.type == "admonition_open":
            kind, title = token.meta["tag"], token.content
        elif token.type == "admonition_title_open" and title.lower() != kind:
            yield _text(f"{kind}: ")


def _text(text: str) -> Token:
    return Token("inline", "", 0, children=[Token("text", "", 0, content=text)])


def _notes(tokens: Sequence[Token]) -> dict[int, int]:
    """Return, by each line of a footnote, the last line of the outermost block that refers to it."""
    referred: dict[str, int] = {}
    block_end = 0
    for token in tokens:
        if token.level == 0 and token.map:
            block_end = token.map[1]
        for child in token.children or ():
            if child.type == "footnote_ref":
                referred.setdefault(child.meta["label"], block_end)
    opened = (token for token in tokens if token.type == "footnote_reference_open" and token.map)
    return {
        line: referred[token.meta["label"]]
        for token in opened
        if token.map and token.meta["label"] in referred
        for line in range(token.map[0] + 1, token.map[1] + 1)
    }


def _order(notes: dict[int, int], block: Block) -> tuple[int, bool]:
    """Return the key by which blocks are sorted: the line, but of a footnote the line that it is to stand behind."""
    return notes.get(block.line, block.line), block.line in notes


def _rendered(tokens: Sequence[Token]) -> str:
    """Render tokens as HTML in which each block stands on the same line as in the Markdown, so that its line number holds."""
    parts: list[str] = []
    line = 0
    for token in tokens:
        if token.map and token.nesting >= 0 and token.map[0] > line:
            parts.append("\n" * (token.map[0] - line))
            line = token.map[0]
        if token.type == "html_block":
            part = _html(token.content)
        elif token.type == "inline":
            part = "".join(map(_inline, token.children or ()))
        elif token.type == "math_block":
            part = f"<p>{escapeHtml(f'$${token.content}$$')}</p>"
        elif token.type in ("fence", "code_block"):
            # HTML drops the line break after <pre>, which stands for the line that opens the fence.
            part = ("<pre>\n" if token.type == "fence" else "<pre>") + f"{escapeHtml(token.content)}</pre>"
        elif token.type == "footnote_reference_open":
            part = '<div role="doc-footnote">'
        elif token.type == "footnote_reference_close":
            part = "</div>"
        elif token.hidden or not token.tag:  # the paragraph of an item in a tight list
            part = " "
        else:
            start = f' start="{token.attrs["start"]}"' if "start" in token.attrs else ""
            part = f"</{token.tag}>" if token.nesting < 0 else f"<{token.tag}{start}>"
        parts.append(part)
        line += part.count("\n")
    return "".join(parts)


def _inline(token: Token) -> str:
    if token.type == "softbreak":
        return "\n"
    if token.type == "hardbreak":
        return "<br>\n"
    if token.type == "html_inline":
        return _html(token.content)
    if token.type == "image":
        return f'<img alt="{escapeHtml("".join(child.content for child in token.children or ()))}">'
    if token.type == "code_inline":
        return f"<code>{escapeHtml(token.content)}</code>"
    if token.tag == "math":
        return escapeHtml(f"{token.markup}{token.content}{token.markup}")
    if token.type == "text":
        return escapeHtml(token.content)
    if token.tag and token.tag != "a":
        return f"</{token.tag}>" if token.nesting < 0 else f"<{token.tag}>"
    return ""


def _html(source: str) -> str:
    """Escape what looks like a tag but is none of HTML's, so that it stays as text, except in drawings (SVG).

    `<aside>`, `<header>` and `<footer>` are content here: in Markdown they are no furniture of a web page.
    """
    if "<svg" in source.lower():
        return source
    source = re.sub(r"(</?)(?:aside|header|footer)\b", r"\1div", source, flags=re.IGNORECASE)
    return _TAG.sub(lambda tag: tag[0] if tag[1].lower() in _ELEMENTS else "&lt;", source)


def _without_swallowing(html: str) -> str:
    """Escape each tag that would hide all that follows because nothing closes it, as `<title>` in a sentence on HTML."""
    last = {end[1].lower(): end.start() for end in re.finditer(rf"</({_HIDING})\b", html, re.IGNORECASE)}
    return re.sub(
        rf"<(?=({_HIDING})\b)",
        lambda tag: tag[0] if tag.start() < last.get(tag[1].lower(), 0) else "&lt;",
        html,
        flags=re.IGNORECASE,
    )
