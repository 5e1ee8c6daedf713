"""Decode HTML, whose bytes say themselves in which encoding they are."""

from __future__ import annotations

import re

from lab_pipeline.taxonomy.documents.blocks import DocumentError, decoded

_CHARSET = re.compile(rb"""<(?:meta|\?xml)\b[^>]*?(?:charset|encoding)\s*=\s*["']?\s*([\w.:-]+)""", re.I)
_TEXT_ENCODING = re.compile(
    r"utf-?8|iso-?8859-?\d+|(x-)?mac-?(roman|cyrillic)|windows-?\d+|cp\d+|koi8-[ru]|gb\w+|big5\S*|euc-\w+|shift_jis|iso-2022-jp",
    re.I,
)


def decoded_html(raw: bytes) -> str:
    """Decode HTML by its byte order mark, by the encoding that it names, or as UTF-8.

    Raises:
        DocumentError: It is not text in that encoding, contains a NUL, or the encoding is none of those that web pages have.
    """
    named = _CHARSET.search(raw[:1024])
    name = named[1].decode("ascii", "replace").lower() if named else "utf-8"
    if raw.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")) or name.startswith(("utf-8", "utf8", "utf-16")):
        return decoded(raw)
    if name in ("ascii", "us-ascii", "latin1", "latin-1", "iso-8859-1"):
        name = "windows-1252"  # as in all browsers
    try:
        if not _TEXT_ENCODING.fullmatch(name):
            raise LookupError
        text = raw.decode(name)
    except LookupError:
        raise DocumentError(f"names an unknown encoding, {name[:40]!r}; save the file as UTF-8") from None
    except UnicodeDecodeError as error:
        message = f"not {name} text, the encoding that it names; save the file as UTF-8"
        raise DocumentError(message, raw[: error.start].count(b"\n") + 1) from None
    return decoded(text.encode())
