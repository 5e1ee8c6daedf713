from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from lab_pipeline.core.rows import CURATED_SCHEMA, TRAINING_SCHEMA, GeneralQuestion, as_conversation
from lab_pipeline.datasets.rows import conversations, custom_row, general_row, instruction_rows, user_texts

GENERAL: GeneralQuestion = {"id": "g", "category": "places", "question": "Where?", "answer": "There."}


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


def test_user_texts_are_those_of_users_with_their_rows_and_documents_have_none():
    question = custom_row([*as_conversation("What?", None, "This."), *as_conversation("Why?", None, "So.")], False, {}, "f:1")
    rows = [{**question, "source": "document"}, question, general_row(GENERAL)]
    texts, numbers = user_texts(pa.Table.from_pylist(rows, TRAINING_SCHEMA))
    assert (texts.to_pylist(), numbers.tolist()) == (["What?", "Why?", "Where?"], [1, 1, 2])


def test_conversations_are_read_from_tables_of_several_chunks_and_slices():
    rows = [custom_row(as_conversation(f"{n}?", None, "Yes."), False, {}, f"f:{n}") for n in range(6)]
    tables = [pa.Table.from_pylist(rows[:3], TRAINING_SCHEMA).slice(1), pa.Table.from_pylist(rows[3:], TRAINING_SCHEMA)]
    expected = [[("user", f"{n}?"), ("assistant", "Yes.")] for n in range(1, 6)]
    assert list(conversations(pa.concat_tables(tables))) == expected
