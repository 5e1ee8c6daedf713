import io
import zipfile

import pytest

from lab_pipeline.taxonomy.documents.archive import check_archive
from lab_pipeline.taxonomy.documents.blocks import DocumentError


def archive(content: bytes, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as opened:
        opened.writestr("a.xml", content)
    return buffer.getvalue()


def announcing(size: int, raw: bytes) -> bytes:
    """Change the size that an archive of one entry announces, in its directory and before the entry."""
    directory = raw.index(b"PK\x01\x02")
    size_bytes = size.to_bytes(4, "little")
    return raw[:22] + size_bytes + raw[26 : directory + 24] + size_bytes + raw[directory + 28 :]


def test_an_archive_of_usual_size_passes():
    check_archive(archive(b"<a>text</a>" * 1000), ".docx")
    check_archive(archive(b"text", zipfile.ZIP_STORED), ".docx")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (bytes.fromhex("D0CF11E0A1B11AE1") + bytes(600), "password"),
        (b"", "is not a .docx file, or is damaged"),
        (b"%PDF-1.7", "is not a .docx file, or is damaged"),
        (archive(b"text" * 100)[:-30], "is not a .docx file, or is damaged"),
        (archive(b"text", zipfile.ZIP_STORED).replace(b"text", b"TEXT"), "is not a .docx file, or is damaged"),
        (archive(bytes(30_000_000)), "unfolds to 30 MB"),
        (announcing(300_000_000, archive(b"text")), "unfolds to 300 MB"),
        (announcing(1000, archive(bytes(30_000_000))), "is not a .docx file, or is damaged"),
        (archive(b"text" * 100, zipfile.ZIP_BZIP2), "compressed in a way"),
        (archive(b"text" * 100, zipfile.ZIP_LZMA), "compressed in a way"),
    ],
    ids=range(10),  # a file's bytes hold the time
)
def test_other_files_are_refused(raw, message):
    with pytest.raises(DocumentError, match=message):
        check_archive(raw, ".docx")


def test_an_entry_with_a_password_is_refused():
    raw = bytearray(archive(b"text"))
    raw[6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(DocumentError, match="password"):
        check_archive(bytes(raw), ".docx")
