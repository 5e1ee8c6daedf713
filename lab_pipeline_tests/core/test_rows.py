from __future__ import annotations

from typing import Annotated, Literal, TypedDict

import pyarrow as pa
import pytest

from lab_pipeline.core import rows
from lab_pipeline.core.rows import GeneratedRow, arrow_schema, as_conversation, as_prompt, is_document_instruction

GENERATED = """
id: string, leaf: string, kind: string, context: string, question: string, answer: string, support: string,
document: string, document_commit: string, span_start: int64, span_end: int64, taxonomy_commit: string, flow: string,
flow_version: int32, teacher: string, augmentation: string, fault: string,
scores: list<item: struct<judge: string, score: double, verdict: string>>
"""
CURATED = f"{GENERATED}, advice: list<item: string>"
STORED = {
    "SNAPSHOT_SCHEMA": """
        leaf: string, kind: string, version: int32, schema_verdict: string, usable: bool, fingerprint: string, seeds: int32,
        held_out: int32, documents: list<item: string>, document_commit: string, contributor: string, attribution: string,
        problems: list<item: struct<file: string, line: int32, severity: string, message: string>>,
        heldout_questions: list<item: struct<question: string, answer: string, context: string>>
    """,
    "GENERATED_SCHEMA": GENERATED,
    "JUDGED_SCHEMA": GENERATED,
    "EXAM_SCHEMA": f"{GENERATED}, wrong: list<item: string>",
    "CURATED_SCHEMA": CURATED,
    "REJECTED_SCHEMA": f"{CURATED}, rule: string, reason: string",
    "CATALOG_SCHEMA": """
        leaf: string, kind: string, state: string, rows: int64, generated: int64, curated: string, content: string,
        source: string, banned: list<item: string>, note: string
    """,
    "TRAINING_SCHEMA": """
        id: string, messages: list<item: struct<role: string, content: string>>, metadata: string, unmask: bool, leaf: string,
        source: string, source_row: string, part: string
    """,
    "EXCLUDED_SCHEMA": """
        id: string, leaf: string, question: string, rule: string, reason: string, repeats: string, similarity: double
    """,
}
"""Columns and types of all tables in homes: these are read by later releases, so a change here needs a migration."""


def stated(schema: pa.Schema) -> str:
    return ", ".join(f"{column.name}: {column.type}" for column in schema)


def flat(text: str) -> str:
    return " ".join(text.split()).replace(" ,", ",")


@pytest.mark.parametrize("name", [name for name in dir(rows) if name.endswith("_SCHEMA")])
def test_the_columns_and_types_of_every_table_stay_as_homes_hold_them(name: str) -> None:
    schema = getattr(rows, name)
    assert stated(schema) == flat(STORED[name])
    assert all(column.nullable for column in schema)


class _Inner(TypedDict):
    name: str
    size: Annotated[int, pa.int32()]


class _Base(TypedDict):
    flag: bool
    count: int | None


class _Row(_Base):
    share: float
    part: Literal["one", "two"] | None
    inner: _Inner
    inners: list[_Inner] | None
    small: Annotated[int, pa.int32()] | None


def test_a_schema_follows_from_a_typed_dict_with_the_columns_of_its_base_first() -> None:
    assert stated(arrow_schema(_Row)) == (
        "flag: bool, count: int64, share: double, part: string, inner: struct<name: string, size: int32>, "
        "inners: list<item: struct<name: string, size: int32>>, small: int32"
    )


def test_a_context_stands_before_its_question() -> None:
    assert as_prompt("Why?", None) == [{"role": "user", "content": "Why?"}]
    assert as_conversation("Why?", "A text.", "So.") == [
        {"role": "user", "content": "A text.\n\nWhy?"},
        {"role": "assistant", "content": "So."},
    ]


@pytest.mark.parametrize(
    ("kind", "context", "expected"),
    [("knowledge", "A passage.", True), ("knowledge", None, False), ("grounded_skill", "A text.", False)],
)
def test_only_a_knowledge_row_with_a_context_is_a_document_instruction(kind: str, context: str | None, expected: bool) -> None:
    row: GeneratedRow = {"kind": kind, "context": context}  # type: ignore[typeddict-item]
    assert is_document_instruction(row) == expected
