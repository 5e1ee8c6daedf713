"""A change of how leaves or documents are read must raise the version, else homes keep rows that were read otherwise."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import digest, read_json, write_json
from lab_pipeline.taxonomy.documents.reading import read_document
from lab_pipeline.taxonomy.snapshot import READING_VERSION, take_snapshot
from lab_pipeline_tests.builders import settings_for, write_taxonomy
from lab_pipeline_tests.taxonomy.documents.pdf_files import Words, pdf
from lab_pipeline_tests.taxonomy.documents.test_docx import of_body, paragraph

RECORD = Path(__file__).with_name("reading.json")
TEXT = "# Keys\n\nIlse keeps *three* keys.\n\n- one\n- two\n\n| Gate | Key |\n|---|---|\n| North | 1 |\n\n```\nopen\n```\n"
FILES = {
    "a.md": TEXT.encode(),
    "a.txt": TEXT.encode(),
    "a.html": b"<h1>Keys</h1><p>Ilse keeps <b>three</b> keys.<ul><li>one<li>two</ul><table><tr><th>Gate<tr><td>North</table>",
    "a.docx": of_body(paragraph("Ilse keeps three keys.") + paragraph("Of the north gate.")),
    "a.pdf": pdf([Words(72, 700, "Ilse keeps three keys."), Words(72, 688, "Of the north gate.")]),
}


def test_reading_otherwise_needs_another_version(tmp_path):
    snapshot = take_snapshot(Home.open(tmp_path / "home"), settings_for(write_taxonomy(tmp_path / "taxonomy")))
    documents = [dataclasses.asdict(read_document(name, "c", raw)) for name, raw in FILES.items()]
    rows = [{**row, "document_commit": None} for row in snapshot.rows]
    found = {"version": READING_VERSION, "digest": digest([rows, documents])}
    if found["version"] != read_json(RECORD)["version"]:
        write_json(RECORD, found)  # commit it with the version
    assert found == read_json(RECORD), f"raise READING_VERSION in lab_pipeline/taxonomy/snapshot.py; found {found['digest']}"
