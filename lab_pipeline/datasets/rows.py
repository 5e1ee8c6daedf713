"""Build training rows from curated rows, seeds, documents, general questions and custom data, and read their messages."""

import json
from collections.abc import Iterator, Mapping
from itertools import pairwise

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
from lab_pipeline.taxonomy.attribution import licences
from lab_pipeline.taxonomy.snapshot import Snapshot

PROVENANCE_COLUMNS = ("document", "document_commit", "flow", "taxonomy_commit", "teacher")
"""Columns of curated rows that training rows carry as metadata."""


def instruction_rows(rows: pa.Table, validating: set[str]) -> pa.Table:
    """Convert curated rows to training rows of the source `curated`, column by column, since there may be millions.

    Rows whose id is in `validating` are for validation, all others for training. The loss covers the whole text of document
    instructions (`unmask`), and the answers of all other rows.
    """
    ids, leaves = rows["id"].to_pylist(), rows["leaf"].to_pylist()
    provenance = list(zip(*(rows[column].to_pylist() for column in PROVENANCE_COLUMNS), strict=True))
    as_json = {values: _as_json(dict(zip(PROVENANCE_COLUMNS, values, strict=True))) for values in set(provenance)}
    context = pc.coalesce(rows["context"], "")
    before = pc.if_else(pc.equal(context, ""), "", pc.binary_join_element_wise(context, "", "\n\n"))
    columns = {
        "id": [digest(["curated", leaf, name]) for leaf, name in zip(leaves, ids, strict=True)],
        "messages": _question_answer_turns(pc.binary_join_element_wise(before, rows["question"], ""), rows["answer"]),
        "metadata": [as_json[values] for values in provenance],
        "unmask": [is_document_instruction(row) for row in rows.select(["kind", "context"]).to_pylist()],
        "leaf": rows["leaf"],
        "source": ["curated"] * len(ids),
        "source_row": rows["id"],
        "part": ["validation" if name in validating else "train" for name in ids],
    }
    return pa.table(columns, TRAINING_SCHEMA)


def _question_answer_turns(prompts: pa.ChunkedArray, answers: pa.ChunkedArray) -> pa.ListArray:
    """Build each row's messages as `as_conversation` does: the prompt by the user, the answer by the assistant."""
    count = len(prompts)
    contents = pa.concat_arrays([*prompts.chunks, *answers.chunks]).take(np.arange(2 * count).reshape(2, count).T.ravel())
    roles = pa.array(["user", "assistant"]).take(np.tile([0, 1], count))
    turns = pa.StructArray.from_arrays([roles, contents], fields=list(TRAINING_SCHEMA.field("messages").type.value_type))
    return pa.ListArray.from_arrays(np.arange(0, 2 * count + 1, 2, dtype=np.int32), turns)


def seed_row(leaf: str, seed: SeedExample) -> TrainingRow:
    """Convert a seed example in use to a training row: what a person wrote is the best row that a skill has."""
    messages = as_conversation(seed["asked"], None, seed["answer"])
    return _row(digest([seed["asked"], seed["answer"]]), messages, {}, leaf=leaf, source="seed")


def document_row(leaf: str, domain: str, passage: Passage) -> TrainingRow:
    """Convert a passage of a document to a training row: a question about its heading, or else about the leaf's domain, with
    the passage as answer. The loss covers the whole text (`unmask`)."""
    subject = passage["heading"] or domain
    messages = as_conversation(f"What do you know about this subject: {subject}?", None, passage["text"])
    metadata = {"document": passage["document"], "document_commit": passage["commit"], "domain": domain}
    source_row = digest([leaf, passage["document"], passage["start"], passage["text"]])
    return _row(source_row, messages, metadata, leaf=leaf, source="document", unmask=True)


def general_row(question: GeneralQuestion) -> TrainingRow:
    """Convert a general question, which is replayed against forgetting, to a training row of no leaf."""
    messages = as_conversation(question["question"], None, question["answer"])
    return _row(question["id"], messages, {"category": question["category"]}, leaf=None, source="general")


def custom_row(messages: list[Turn], unmask: bool, metadata: Mapping[str, object], place: str) -> TrainingRow:
    """Build a training row of a custom data set (source `own`, no leaf); `place`, its file and line, becomes its `source_row`.

    Its id is the hash of messages and `unmask`, so it is the same wherever the file lies.
    """
    row = _row(digest([messages, unmask]), messages, metadata, leaf=None, source="own", unmask=unmask)
    return {**row, "source_row": place}


def _row(
    source_row: str, messages: list[Turn], metadata: Mapping[str, object], leaf: str | None, source: str, unmask: bool = False
) -> TrainingRow:
    return {
        "id": digest([source, leaf, source_row]),
        "messages": messages,
        "metadata": _as_json(metadata),
        "unmask": unmask,
        "leaf": leaf,
        "source": source,
        "source_row": source_row,
        "part": "train",
    }


def licences_by_leaf(snapshot: Snapshot) -> dict[str, list[str]]:
    """Return the licences that each leaf's attribution states, by leaf; an empty list for a leaf that states none."""
    return {row["leaf"]: licences(row["attribution"]) for row in snapshot.rows}


def with_licences(rows: pa.Table, stated: Mapping[str, list[str]]) -> pa.Table:
    """Return the rows with the licences of their leaf in the metadata (`licences`); rows of no leaf stay as they are.

    Metadata is part of no hash, so an edited licence retrains nothing.
    """
    before = list(zip(rows["metadata"].to_pylist(), rows["leaf"].to_pylist(), strict=True))
    after = {
        (metadata, leaf): _as_json({**json.loads(metadata), "licences": stated.get(leaf, [])}) if leaf else metadata
        for metadata, leaf in set(before)
    }
    column = TRAINING_SCHEMA.get_field_index("metadata")
    return rows.set_column(column, TRAINING_SCHEMA.field(column), pa.array([after[each] for each in before], pa.string()))


def _as_json(metadata: Mapping[str, object]) -> str:
    return json.dumps(metadata, sort_keys=True, ensure_ascii=False)


def conversations(rows: pa.Table) -> Iterator[list[tuple[str, str]]]:
    """Yield for each row the list of its messages, each as (role, content)."""
    for messages in rows["messages"].chunks:
        turns = messages.flatten()
        flat = list(zip(turns.field("role").to_pylist(), turns.field("content").to_pylist(), strict=True))
        bounds = messages.offsets.to_numpy() - messages.offsets[0].as_py()
        for start, end in pairwise(bounds.tolist()):
            yield flat[start:end]


def user_texts(rows: pa.Table) -> tuple[pa.Array, np.ndarray]:
    """Return the contents of all user messages, and for each the index of its row.

    Rows of the source `document` are left out: their prompts are made from headings and ask for no fact.
    """
    messages = rows["messages"].combine_chunks()
    turns, row = messages.flatten(), pc.list_parent_indices(messages)
    is_question = pc.not_equal(rows["source"].combine_chunks(), "document").take(row)
    by_user = pc.and_(is_question, pc.equal(turns.field("role"), "user"))
    return turns.field("content").filter(by_user), row.filter(by_user).to_numpy()
