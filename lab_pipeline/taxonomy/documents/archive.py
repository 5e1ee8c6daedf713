"""Check zip archives, such as DOCX and PPTX, before a library unfolds them in memory."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

from lab_pipeline.taxonomy.documents.blocks import DocumentError

MAX_UNFOLDED_BYTES = 200_000_000
MAX_RATIO, RATIO_FROM_BYTES = 100, 20_000_000
"""An archive may unfold to `MAX_RATIO` times its size beyond `RATIO_FROM_BYTES`; XML of Office is usually 10 times as large."""

_OLE2 = bytes.fromhex("D0CF11E0")  # documents of Office with a password, and those of Office before 2007


def check_archive(raw: bytes, suffix: str) -> None:
    """Raise unless all entries of a zip archive can be unfolded whole to no more than `MAX_UNFOLDED_BYTES`.

    Args:
        suffix: What the file should be, such as '.docx', for the messages.

    Raises:
        DocumentError: The file is no zip archive, is damaged, has a password, or unfolds to too much.
    """
    if raw.startswith(_OLE2):
        raise DocumentError(f"is protected by a password (or is of an old Office); save it as {suffix} without a password")
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            unfolded = sum(entry.file_size for entry in archive.infolist())
            if unfolded > MAX_UNFOLDED_BYTES or unfolded > max(RATIO_FROM_BYTES, MAX_RATIO * len(raw)):
                raise DocumentError(f"unfolds to {unfolded // 1_000_000} MB, which is too much")
            for entry in archive.infolist():
                if entry.flag_bits & 1:
                    raise DocumentError(f"is protected by a password; save it as {suffix} without a password")
                if entry.compress_type not in (
                    zipfile.ZIP_STORED,
                    zipfile.ZIP_DEFLATED,
                ):  # Python unfolds others without bounds
                    raise DocumentError(f"is compressed in a way that {suffix} files are not")
                # Reading stops at the announced size, and fails if that was wrong.
                with archive.open(entry) as opened:
                    while opened.read(1_000_000):
                        pass
    # All that zipfile raises on damaged archives; each means the same to the reader.
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, OSError, OverflowError, ValueError):
        raise DocumentError(f"is not a {suffix} file, or is damaged") from None
