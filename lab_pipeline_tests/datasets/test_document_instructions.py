from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from lab_pipeline.core.rows import CURATED_SCHEMA
from lab_pipeline.datasets.rows import instruction_rows


def curated(**columns: Any) -> dict[str, Any]:
    made = dict.fromkeys(("document", "document_commit", "taxonomy_commit", "flow", "teacher", "context"))
    return {**made, "id": "1", "leaf": "a/leaf", "question": "Summarize this.", "answer": "It is short.", **columns}


@pytest.mark.parametrize(
    ("kind", "context", "asked", "unmask"),
    [
        ("knowledge", "A long text.", "A long text.\n\nSummarize this.", True),
        ("knowledge", None, "Summarize this.", False),
        ("grounded_skill", "A long text.", "A long text.\n\nSummarize this.", False),
        ("freeform_skill", None, "Summarize this.", False),
    ],
)
def test_a_document_instruction_shows_its_passage_and_is_learned_whole(
    kind: str, context: str | None, asked: str, unmask: bool
) -> None:
    (row,) = instruction_rows(pa.Table.from_pylist([curated(kind=kind, context=context)], CURATED_SCHEMA), set()).to_pylist()
    assert row["messages"][0]["content"] == asked
    assert (row["unmask"], row["source"]) == (unmask, "curated")
