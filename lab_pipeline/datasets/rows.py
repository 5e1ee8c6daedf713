"""Training rows: the columns that instructlab-training and training_hub read, and ours beside them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lab_pipeline.core.rows import (
    TRAINING_SCHEMA,
    GeneralQuestion,
    Passage,
    SeedExample,
    TrainingRow,
    Turn,
    as_conversation,
    is_document_instruction,
)
from lab_pipeline.core.storage import digest

TAUGHT_BY = ("document", "document_commit", "flow", "taxonomy_commit", "teacher")
"""Columns of curated rows that training rows carry as metadata."""


def instruction_rows(rows: pa.Table, validating: set[str]) -> pa.Table:
    """Curated rows as training rows, column by column, for there may be very many.

    Args:
        validating: ids of the rows whose part is *validation*.
    """
    ids, leaves = rows["id"].to_pylist(), rows["leaf"].to_pylist()
    taught_by = list(zip(*(rows[column].to_pylist() for column in TAUGHT_BY), strict=True))
    as_json = {values: _as_json(dict(zip(TAUGHT_BY, values, strict=True))) for values in set(taught_by)}
    context = pc.coalesce(rows["context"], "")
    before = pc.if_else(pc.equal(context, ""), "", pc.binary_join_element_wise(context, "", "\n\n"))
    columns = {
        "id": [digest(["curated", *origin]) for origin in zip(leaves, ids, strict=True)],
        "messages": _conversations(pc.binary_join_element_wise(before, rows["question"], ""), rows["answer"]),
        "metadata": [as_json[values] for values in taught_by],
        "unmask": [is_document_instruction(row) for row in rows.select(["kind", "context"]).to_pylist()],
        "leaf": rows["leaf"],
        "source": ["curated"] * len(ids),
        "source_row": rows["id"],
        "part": ["validation" if id in validating else "train" for id in ids],
    }
    return pa.table(columns, TRAINING_SCHEMA)


def _conversations(prompts: pa.ChunkedArray, answers: pa.ChunkedArray) -> pa.ListArray:
    """Messages of one prompt and its answer each."""
    count = len(prompts)
    turns = pa.concat_arrays([*prompts.chunks, *answers.chunks]).take(np.arange(2 * count).reshape(2, count).T.ravel())
    roles = pa.array(["user", "assistant"]).take(np.tile([0, 1], count))
    turns = pa.StructArray.from_arrays([roles, turns], fields=list(TRAINING_SCHEMA.field("messages").type.value_type))
    return pa.ListArray.from_arrays(np.arange(0, 2 * count + 1, 2, dtype=np.int32), turns)


def seed_row(leaf: str, seed: SeedExample) -> TrainingRow:
    """A seed example in use as a training row: what a person wrote is the best row that a skill has."""
    messages = as_conversation(seed["asked"], None, seed["answer"])
    return _row(digest([seed["asked"], seed["answer"]]), messages, {}, leaf=leaf, source="seed")


def document_row(leaf: str, domain: str, passage: Passage) -> TrainingRow:
    """A passage of a document as a row to be learned whole (`unmask`)."""
    subject = passage["heading"] or domain
    metadata = {"document": passage["document"], "document_commit": passage["commit"], "domain": domain}
    origin = digest([leaf, passage["document"], passage["start"], passage["text"]])
    return _row(
        origin,
        as_conversation(f"What do you know about this subject: {subject}?", None, passage["text"]),
        metadata,
        leaf=leaf,
        source="document",
        unmask=True,
    )


def general_row(question: GeneralQuestion) -> TrainingRow:
    """A general question with its answer, replayed against forgetting."""
    return _row(
        question["id"],
        as_conversation(question["question"], None, question["answer"]),
        {"category": question["category"]},
        leaf=None,
        source="general",
    )


def licensed(rows: pa.Table, licences: dict[str, list[str]]) -> pa.Table:
    """Rows with the licences that their leaf's attribution states; no part of any hash, so an edit retrains nothing."""
    before = list(zip(rows["metadata"].to_pylist(), rows["leaf"].to_pylist(), strict=True))
    after = {
        (metadata, leaf): _as_json({**json.loads(metadata), "licences": licences.get(leaf, [])}) if leaf else metadata
        for metadata, leaf in set(before)
    }
    column = TRAINING_SCHEMA.get_field_index("metadata")
    return rows.set_column(column, TRAINING_SCHEMA.field(column), pa.array([after[each] for each in before], pa.string()))


def custom_row(messages: list[Turn], unmask: bool, metadata: dict[str, Any], place: str) -> TrainingRow:
    """A row of somebody's own data set; its id is its content's, so it is the same wherever the file lies."""
    row = _row(digest([messages, unmask]), messages, metadata, leaf=None, source="own", unmask=unmask)
    return {**row, "source_row": place}


def _row(
    origin: str,
    messages: list[Turn],
    metadata: dict[str, Any],
    leaf: str | None,
    source: str,
    unmask: bool = False,
) -> TrainingRow:
    return {
        "id": digest([source, leaf, origin]),
        "messages": messages,
        "metadata": _as_json(metadata),
        "unmask": unmask,
        "leaf": leaf,
        "source": source,
        "source_row": origin,
        "part": "train",
    }


def _as_json(metadata: dict[str, Any]) -> str:
    return json.dumps(metadata, sort_keys=True, ensure_ascii=False)
