"""Change the XML of a DOCX file so that mammoth's HTML says what Word shows."""

from __future__ import annotations

import re

from lxml import etree

W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_PICTURES = ("}pic", "}imagedata", "}chart", "}relIds")
_OFF = ("0", "false", "off")
_SIGNS = {f"{_M}sup": "^", f"{_M}sub": "_", f"{_M}den": "/"}


def prepare(trees: dict[str, etree._Element]) -> int:
    """Change all parts with text in place: hidden text goes; text boxes, equations and pictures become paragraphs and text.

    Returns:
        The number of pictures without alternative text.
    """
    hidden = _hidden_styles(trees.get("word/styles.xml"))
    pictures = 0
    for name, root in trees.items():
        if re.fullmatch(r"word/(document|footnotes|endnotes)\d*\.xml", name):
            _choose_alternatives(root)
            _unwrap(root)
            _drop_hidden(root, hidden)
            _lift_text_boxes(root)
            _write_equations(root)
            pictures += _describe_pictures(root)
            _mark_header_rows(root)
    return pictures


def uses_title(document: etree._Element, trees: dict[str, etree._Element]) -> bool:
    """Say whether a paragraph of the document has Word's style Title."""
    styles = trees.get("word/styles.xml")
    titles = (
        set()
        if styles is None
        else {each.get(f"{W}styleId", "") for each in styles.iter(f"{W}style") if _value(each, f"{W}name").lower() == "title"}
    )
    return any(_value(each, f"{W}pPr/{W}pStyle") in titles and text_of(each).strip() for each in document.iter(f"{W}p"))


def text_of(element: etree._Element) -> str:
    """Return the text within an element as it is stored."""
    return "".join(each.text or "" for each in element.iter(f"{W}t", f"{_M}t"))


def _is_on(element: etree._Element | None) -> bool:
    return element is not None and element.get(f"{W}val") not in _OFF


def _hidden_styles(styles: etree._Element | None) -> set[str]:
    found = [] if styles is None else [each for each in styles.iter(f"{W}style") if _is_on(each.find(f"{W}rPr/{W}vanish"))]
    return {each.get(f"{W}styleId", "") for each in found}


def _value(element: etree._Element, path: str) -> str:
    found = element.find(path)
    return "" if found is None else found.get(f"{W}val", "")


def _remove(element: etree._Element) -> None:
    parent = element.getparent()
    if parent is not None:
        parent.remove(element)


def _choose_alternatives(root: etree._Element) -> None:
    """Put the modern form in place of each pair of forms, because the older one of a drawing lacks its alternative text."""
    for pair in list(root.iter(f"{_MC}AlternateContent")):
        chosen = pair.find(f"{_MC}Choice")
        chosen = pair.find(f"{_MC}Fallback") if chosen is None else chosen
        parent = pair.getparent()
        if parent is not None:
            for child in list(chosen) if chosen is not None else []:
                pair.addprevious(child)
            parent.remove(pair)


def _unwrap(root: etree._Element) -> None:
    """Put the content of elements that mammoth does not know, such as simple fields, in their place."""
    for wrapper in list(root.iter(*(f"{W}{name}" for name in ("fldSimple", "bdo", "dir", "ruby", "rt", "rubyBase")))):
        for child in list(wrapper):
            wrapper.addprevious(child)
        _remove(wrapper)
    for line_end in root.iter(f"{W}cr"):
        line_end.tag = f"{W}br"


def _drop_hidden(root: etree._Element, hidden: set[str]) -> None:
    for run in list(root.iter(f"{W}r")):
        own = run.find(f"{W}rPr/{W}vanish")
        paragraph = next(run.iterancestors(f"{W}p"), None)
        styles = {_value(run, f"{W}rPr/{W}rStyle"), "" if paragraph is None else _value(paragraph, f"{W}pPr/{W}pStyle")}
        if _is_on(own) or (own is None and styles & hidden):
            _remove(run)


def _lift_text_boxes(root: etree._Element) -> None:
    """Move what text boxes hold behind the paragraph that anchors them."""
    for box in reversed(list(root.iter(f"{W}txbxContent"))):
        anchor = next(box.iterancestors(f"{W}p"), None)
        if anchor is not None and next(box.iterancestors(f"{W}del"), None) is None:
            for child in reversed(list(box)):
                anchor.addnext(child)


def _write_equations(root: etree._Element) -> None:
    """Write each equation in one line of text, such as a/b or x^2."""
    for equation in list(root.iter(f"{_M}oMath")):
        text = ""
        for event, each in etree.iterwalk(equation, events=("start", "end")):
            grouped = each.tag in (*_SIGNS, f"{_M}num") and len(text_of(each)) > 1
            if event == "start":
                text += _SIGNS.get(str(each.tag), "") + ("(" if grouped else "")
                text += each.text or "" if each.tag == f"{_M}t" else ""
            elif grouped:
                text += ")"
        run = etree.Element(f"{W}r")
        etree.SubElement(run, f"{W}t").text = text
        equation.addprevious(run)
        _remove(equation)
    for paragraph in list(root.iter(f"{_M}oMathPara")):
        for run in paragraph.findall(f"{W}r"):
            paragraph.addprevious(run)
        _remove(paragraph)


def _describe_pictures(root: etree._Element) -> int:
    """Put the alternative text of pictures, charts and shapes in their place, and count the pictures and charts without one."""
    missing = 0
    for drawing in list(root.iter(f"{W}drawing", f"{W}pict")):
        named = [each for each in drawing.iter(etree.Element) if etree.QName(each).localname in ("docPr", "shape", "imagedata")]
        words = next(
            (each.get(key, "") for each in named for key in ("descr", "alt", "title") if each.get(key, "").strip()), ""
        )
        if words:
            text = etree.Element(f"{W}t")
            text.text = f"[{words}]"
            drawing.addprevious(text)
        elif any(str(each.tag).endswith(_PICTURES) for each in drawing.iter()):
            missing += 1
        _remove(drawing)
    return missing


def _mark_header_rows(root: etree._Element) -> None:
    """Mark the first row of a table as its header where only the look of the table says so."""
    for table in root.iter(f"{W}tbl"):
        rows = table.findall(f"{W}tr")
        for mark in table.iterfind(f"{W}tr/{W}trPr/{W}tblHeader"):
            if not _is_on(mark):
                _remove(mark)
        look = table.find(f"{W}tblPr/{W}tblLook")
        if look is None or len(rows) < 2 or table.find(f"{W}tr/{W}trPr/{W}tblHeader") is not None:
            continue
        value = look.get(f"{W}val", "0")
        bits = int(value, 16) if re.fullmatch("[0-9A-Fa-f]{1,8}", value) else 0
        if look.get(f"{W}firstRow", "1" if bits & 0x20 else "0") not in _OFF:
            properties = rows[0].find(f"{W}trPr")
            if properties is None:
                properties = etree.Element(f"{W}trPr")
                rows[0].insert(0, properties)
            etree.SubElement(properties, f"{W}tblHeader")
