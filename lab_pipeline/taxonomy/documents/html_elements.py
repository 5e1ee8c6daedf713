"""Say what an HTML element is to a reader of the page: hidden, part of the furniture around the content, a note."""

from __future__ import annotations

import re

from lxml import etree

BLOCKS = frozenset(
    "address article aside blockquote body caption center dd details dialog dir div dl dt fieldset figcaption figure footer "
    "form frameset h1 h2 h3 h4 h5 h6 header hgroup hr html legend li listing main menu nav noframes ol p plaintext pre search "
    "section summary table tbody td tfoot th thead tr ul xmp".split()
)
"""Elements that stand apart from the text before and after them."""

_INVISIBLE = frozenset("annotation annotation-xml datalist noscript script style template title".split())
_FURNITURE = {"nav": "navigation", "aside": "aside", "header": "page header", "footer": "page footer"}
_ROLES = {"navigation": "nav", "complementary": "aside", "banner": "header", "contentinfo": "footer"}
_NOTES = frozenset("doc-endnote doc-endnotes doc-footnote footnote footnotes endnotes sdfootnote sdendnote".split())


def is_hidden(element: etree._Element) -> bool:
    """Say whether a browser does not show an element, or whether it is only a link back from a note."""
    style = re.sub(r"\s", "", element.get("style", "")).lower()
    return (
        element.tag in _INVISIBLE
        or element.get("hidden") is not None
        or element.get("aria-hidden") == "true"
        or "display:none" in style
        or "visibility:hidden" in style
        or element.get("role") == "doc-backlink"
        or (element.tag == "dialog" and element.get("open") is None)
        or (element.tag == "input" and element.get("type") == "hidden")
    )


def is_note(element: etree._Element) -> bool:
    """Say whether an element holds footnotes or endnotes."""
    names = f"{element.get('role', '')} {element.get('class', '')} {element.get('epub:type', '')}"
    return not _NOTES.isdisjoint(names.split())


def furniture(element: etree._Element) -> str:
    """Say what part of the page around its content an element is, or ''. An article has a header and a footer of its own."""
    tag = _ROLES.get(element.get("role", ""), str(element.tag))
    if tag in ("header", "footer") and any(parent.tag in ("article", "main", "section") for parent in element.iterancestors()):
        return ""
    return "" if is_note(element) else _FURNITURE.get(tag, "")


def visible_text(element: etree._Element) -> str:
    """Return the visible text within an element, furniture included, without regard to blocks."""
    parts: list[str] = []
    walk = etree.iterwalk(element, events=("start", "end", "comment", "pi"))
    for event, each in walk:
        if event == "start" and is_hidden(each):
            walk.skip_subtree()
        elif event == "start":
            parts += [" " if each.tag == "br" or each.tag in BLOCKS else "", each.text or ""]
        if event != "start" and each is not element:
            parts.append(each.tail or "")
    return "".join(parts)
