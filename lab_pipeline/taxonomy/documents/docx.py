"""Read DOCX files: mammoth turns what they show into HTML, after their XML is freed of all that they do not show."""

from __future__ import annotations

import io
import re
import zipfile

from lxml import etree

from lab_pipeline.taxonomy.documents.archive import check_archive
from lab_pipeline.taxonomy.documents.blocks import Block, DocumentError, LeftOut, Reading
from lab_pipeline.taxonomy.documents.docx_xml import W, prepare, text_of, uses_title
from lab_pipeline.taxonomy.documents.html import blocks_of_html

READER = "docx 1"

_MOST_BYTES_OF_TEXT = 30_000_000

_READ = re.compile(r"\[Content_Types\]\.xml|(word/)?_rels/[^/]+\.rels|word/[^/]+\.xml")
_STRICT = (b"http://purl.oclc.org/ooxml/wordprocessingml/main", b"http://schemas.openxmlformats.org/wordprocessingml/2006/main")
_HOLDERS = ("p", "li", "h1", "h2", "h3", "h4", "h5", "h6", "figcaption", "blockquote", "pre", "td", "th", "div")

_STYLES = """
p[style-name='Title'] => h1:fresh
p[style-name='Subtitle'] => p:fresh
p[style-name^='caption'] => figcaption:fresh
p[style-name^='Caption'] => figcaption:fresh
p[style-name='Quote'] => blockquote:fresh
p[style-name='Intense Quote'] => blockquote:fresh
p[style-name='HTML Preformatted'] => pre:separator('\\n')
p[style-name='Preformatted Text'] => pre:separator('\\n')
p[style-name='Plain Text'] => pre:separator('\\n')
p[style-name='Source Code'] => pre:separator('\\n')
p[style-name='Code'] => pre:separator('\\n')
p[style-name='macro'] => pre:separator('\\n')
"""


def _style_map(has_title: bool) -> str:
    """Add what depends on the document, and Word's list styles, which mammoth would take for lists of the first level."""
    lines = [f"p[style-name='heading {level}'] => h{min(level + has_title, 6)}:fresh" for level in range(1, 10)]
    for level in range(1, 6):
        outer, name = "ul|ol > li > " * (level - 1), f" {level}" if level > 1 else ""
        lines.append(f"p[style-name='List Bullet{name}'] => {outer}ul > li:fresh")
        lines.append(f"p[style-name='List Number{name}'] => {outer}ol > li:fresh")
        lines.append(f"p[style-name='List Continue{name}'] => {outer}ul|ol > li > p:fresh")
    return _STYLES + "\n".join(lines)


def read(raw: bytes) -> Reading:
    """Read a DOCX file as people see it: without deleted and hidden text and comments, notes after the text that names them.

    Where a paragraph has the style Title, it is the heading above all others, whose levels are one lower.

    Raises:
        DocumentError: It is not a whole DOCX file, needs a password, or unpacks to a size that no document has.
    """
    import mammoth

    parts = _unpacked(raw)
    trees = {name: _parsed(content, name) for name, content in parts.items()}
    document = next((tree for name, tree in trees.items() if re.fullmatch(r"word/document\d*\.xml", name)), None)
    if document is None:
        raise DocumentError("is not a Word document: it has no word/document.xml")
    left_out = _outside(trees)
    if pictures := prepare(trees):
        left_out.append(LeftOut(f"{pictures} picture{'s' * (pictures > 1)} without alternative text"))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, tree in trees.items():
            archive.writestr(name, etree.tostring(tree))
    try:
        converted = mammoth.convert_to_html(
            packed, style_map=_style_map(uses_title(document, trees)), include_embedded_style_map=False
        )
    # Mammoth checks nothing: what lacks, is of a wrong kind or nests too deeply shows as one of these.
    except (RecursionError, LookupError, ValueError, TypeError, AttributeError, OSError, OverflowError) as error:
        raise DocumentError(f"is not a Word document as the standard describes it ({type(error).__name__}: {error})") from None
    reading = blocks_of_html(_with_notes_in_place(converted.value))
    if symbols := sum("w:sym" in each.message for each in converted.messages):
        left_out.append(LeftOut(f"{symbols} sign{'s' * (symbols > 1)} of a font for symbols", characters=symbols))
    blocks = [Block(each.kind, each.text, each.level) for each in reading.blocks]
    return Reading(READER, blocks, [*left_out, *(LeftOut(each.what, characters=each.characters) for each in reading.left_out)])


def _unpacked(raw: bytes) -> dict[str, bytes]:
    """Return the parts with text of the file, by their names."""
    check_archive(raw, ".docx")
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        wanted = [entry for entry in archive.infolist() if _READ.fullmatch(entry.filename)]
        if sum(entry.file_size for entry in wanted) > _MOST_BYTES_OF_TEXT:
            raise DocumentError("has more than 30 MB of text with its markup; split it")
        return {entry.filename: archive.read(entry) for entry in wanted}


def _parsed(content: bytes, name: str) -> etree._Element:
    """Parse one part. Entities are refused, because Word writes none and they can grow or name other files."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False, load_dtd=False)
    try:
        root = etree.fromstring(content.replace(*_STRICT), parser)
    except etree.XMLSyntaxError as error:
        raise DocumentError(f"{name} is not well-formed XML: {error.msg}") from None
    if root.getroottree().docinfo.doctype:
        raise DocumentError(f"{name} declares a document type, which Word never does")
    return root


def _outside(trees: dict[str, etree._Element]) -> list[LeftOut]:
    """Say what is left out of headers and footers of pages, and of comments."""
    left_out = []
    for what in ("header", "footer"):
        texts = [text_of(tree) for name, tree in trees.items() if re.fullmatch(rf"word/{what}\d*\.xml", name)]
        if characters := sum(len("".join(text.split())) for text in texts):
            left_out.append(LeftOut(f"page {what}s", characters=characters))
    comments = trees.get("word/comments.xml")
    if comments is not None and (number := len(comments.findall(f"{W}comment"))):
        left_out.append(LeftOut(f"{number} comment{'s' * (number > 1)}"))
    return left_out


def _with_notes_in_place(html: str) -> str:
    """Move each footnote and endnote from the end to where the paragraph or list item ends that refers to it."""
    root = etree.fromstring(f"<div>{html}</div>".encode(), etree.HTMLParser(encoding="utf-8", no_network=True))
    anchors = {each.get("id"): each for each in root.iter("a")}
    for note in root.xpath("//li[starts-with(@id, 'footnote-') or starts-with(@id, 'endnote-')]"):
        reference = anchors.get(note.get("id").replace("note-", "note-ref-", 1))
        if reference is None:
            continue
        for back in note.xpath(".//a[starts-with(@href, '#footnote-ref-') or starts-with(@href, '#endnote-ref-')]"):
            back.text = None
        holder = next(each for each in reference.iterancestors() if each.tag in _HOLDERS)
        note.tag = "div"
        note.set("role", "doc-footnote")
        number = etree.Element("span")
        number.text = f"{reference.text} "
        first = note[0] if len(note) else note
        number.tail, first.text = first.text, None
        first.insert(0, number)
        if holder.tag in ("li", "td", "th", "div"):
            inner = next((index for index, each in enumerate(holder) if each.tag in ("ul", "ol")), len(holder))
            holder.insert(inner, note)
        else:
            while (after := holder.getnext()) is not None and after.get("role") == "doc-footnote":
                holder = after
            holder.addnext(note)
    return etree.tostring(root, encoding="unicode", method="html")
