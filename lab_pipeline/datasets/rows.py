"""Training rows: the columns that instructlab-training and training_hub read, and ours beside them."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from lab_pipeline.flows.instructions import is_document_instruction
from lab_pipeline.storage import digest

TRAINING_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("metadata", pa.string()),
        ("unmask", pa.bool_()),
        ("leaf", pa.string()),
        ("source", pa.string()),
        ("source_row", pa.string()),
        ("part", pa.string()),
    ]
)
"""`unmask` true = the loss covers the whole text but the system message, else the answers only. `metadata` is JSON text, as
upstream has it. `source` says where a row came from (curated, seed, document, general, replay), `source_row` its id there.
`part` is *train*, or *validation* for a row that no model learns from and by which the epoch is chosen."""


def as_prompt(question: str, context: str | None) -> list[dict[str, str]]:
    """The messages by which a model is asked, in training and in evaluation alike: the context before the question."""
    return [{"role": "user", "content": f"{context}\n\n{question}" if context else question}]


def instruction_row(row: dict[str, Any]) -> dict[str, Any]:
    """A curated row as a training row; a document instruction, which holds the document's text, is learned whole."""
    metadata = {key: row[key] for key in ("document", "document_commit", "taxonomy_commit", "flow", "teacher")}
    return _row(
        row["id"],
        [*as_prompt(row["question"], row["context"]), {"role": "assistant", "content": row["answer"]}],
        metadata,
        leaf=row["leaf"],
        source="curated",
        unmask=is_document_instruction(row),
    )


def seed_row(leaf: str, seed: dict[str, str]) -> dict[str, Any]:
    """A seed example in use as a training row: what a person wrote is the best row that a skill has."""
    messages = [*as_prompt(seed["asked"], None), {"role": "assistant", "content": seed["answer"]}]
    return _row(digest(seed["asked"]), messages, {}, leaf=leaf, source="seed")


def document_row(leaf: str, domain: str, passage: dict[str, Any]) -> dict[str, Any]:
    """A passage of a document as a row to be learned whole (`unmask`)."""
    subject = passage["heading"] or domain
    metadata = {"document": passage["document"], "document_commit": passage["commit"], "domain": domain}
    origin = digest([leaf, passage["document"], passage["start"], passage["text"]])
    return _row(
        origin,
        [
            {"role": "user", "content": f"What do you know about this subject: {subject}?"},
            {"role": "assistant", "content": passage["text"]},
        ],
        metadata,
        leaf=leaf,
        source="document",
        unmask=True,
    )


def general_row(question: dict[str, str]) -> dict[str, Any]:
    """A general question with its answer, replayed against forgetting."""
    return _row(
        question["id"],
        [*as_prompt(question["question"], None), {"role": "assistant", "content": question["answer"]}],
        {"category": question["category"]},
        leaf=None,
        source="general",
    )


def licensed(row: dict[str, Any], licences: dict[str, list[str]]) -> dict[str, Any]:
    """A leaf's row with the licences that the leaf's attribution states; no part of any hash, so an edit retrains nothing."""
    if not row["leaf"]:
        return row
    metadata = {**json.loads(row["metadata"]), "licences": licences.get(row["leaf"], [])}
    return {**row, "metadata": json.dumps(metadata, sort_keys=True, ensure_ascii=False)}


def _row(
    origin: str,
    messages: list[dict[str, str]],
    metadata: dict[str, Any],
    leaf: str | None,
    source: str,
    unmask: bool = False,
) -> dict[str, Any]:
    return {
        "id": digest([source, leaf, origin]),
        "messages": messages,
        "metadata": json.dumps(metadata, sort_keys=True, ensure_ascii=False),
        "unmask": unmask,
        "leaf": leaf,
        "source": source,
        "source_row": origin,
        "part": "train",
    }
