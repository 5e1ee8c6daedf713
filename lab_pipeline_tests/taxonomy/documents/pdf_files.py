"""Make small PDF files for tests: words at positions, in the standard fonts, without compression."""

from collections.abc import Sequence
from dataclasses import dataclass

PICTURE = "q 200 0 0 200 100 400 cm BI /W 1 /H 1 /CS /G /BPC 8 ID x EI Q"
"""Operators that draw a grey square from an image."""


@dataclass(frozen=True)
class Words:
    """Words at one place of a page; `x` and `y` are in points from the bottom left corner."""

    x: float
    y: float
    text: str
    size: float = 10
    bold: bool = False
    matrix: str = "1 0 0 1"
    """Rotation and scale."""
    mode: int = 0
    """Render mode: 3 is invisible."""


def pdf(*pages: Sequence[Words | str], extra: str = "", page_extra: str = "") -> bytes:
    """Make a PDF of A4 pages. A string on a page is a piece of content as it stands.

    Args:
        pages: What each page shows, in the order in which it is drawn.
        extra: Entries for the trailer.
        page_extra: Entries for each page's dictionary.
    """
    streams = ["\n".join(_content(each) for each in page) for page in pages]
    kids = " ".join(f"{5 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica-Bold /Encoding /WinAnsiEncoding >>",
    ]
    for number, stream in enumerate(streams):
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {6 + 2 * number} 0 R "
            f"/Resources << /Font << /F0 3 0 R /F1 4 0 R >> >> {page_extra} >>".encode()
        )
        objects.append(made_stream(stream.encode("cp1252")))
    return written(objects, extra)


def made_stream(data: bytes, entries: str = "") -> bytes:
    """Make a stream object."""
    return f"<< /Length {len(data)} {entries} >>\nstream\n".encode() + data + b"\nendstream"


def written(objects: Sequence[bytes], extra: str = "") -> bytes:
    """Write objects 1, 2, 3, ... as a PDF; the first is the catalog."""
    raw, offsets = b"%PDF-1.7\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(raw))
        raw += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    trailer = (
        f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer\n<< /Size {len(objects) + 1} /Root 1 0 R {extra} >>"
    )
    return raw + f"{trailer}\nstartxref\n{len(raw)}\n%%EOF\n".encode()


def _content(each: Words | str) -> str:
    if isinstance(each, str):
        return each
    text = each.text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
    font = f"/F{int(each.bold)} {each.size} Tf {each.mode} Tr"
    return f"BT {font} {each.matrix} {each.x} {each.y} Tm ({text}) Tj ET"
