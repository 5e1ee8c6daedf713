"""Row types."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

GENERATED_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("leaf", pa.string()),
        ("kind", pa.string()),
        ("context", pa.string()),
        ("question", pa.string()),
        ("answer", pa.string()),
        ("support", pa.string()),
        ("document", pa.string()),
        ("document_commit", pa.string()),
        ("span_start", pa.int64()),
        ("span_end", pa.int64()),
        ("taxonomy_commit", pa.string()),
        ("flow", pa.string()),
        ("flow_version", pa.int32()),
        ("teacher", pa.string()),
        ("augmentation", pa.string()),
        ("fault", pa.string()),
        ("scores", pa.list_(pa.struct([("judge", pa.string()), ("score", pa.float64()), ("verdict", pa.string())]))),
    ]
)
"""One row for each candidate. `support` is the text that must bear the answer out: a part of a document, or the context;
`augmentation` names the form of it that the teacher wrote from, null for the text itself. `fault` says why a row is
incomplete. A score goes from 0, bad, to 1, good, and `verdict` is the judge's most probable choice; where none could be read,
`score` is null and `verdict` 'unreadable'. Neither depends on the flow's thresholds, which curation applies."""


JUDGED_SCHEMA = GENERATED_SCHEMA
"""The same, with the scores of all judges."""


def is_document_instruction(row: dict[str, Any]) -> bool:
    """Whether a row asks for another form of a passage, and so has the passage as its context."""
    return row["kind"] == "knowledge" and row["context"] is not None


CURATED_SCHEMA = JUDGED_SCHEMA.append(pa.field("grounding", pa.float64()))
"""`grounding`: see `lab_pipeline.curation.grounding`; null where the flow does not ask for it."""


REJECTED_SCHEMA = CURATED_SCHEMA.append(pa.field("rule", pa.string())).append(pa.field("reason", pa.string()))
"""A rejected row whole, with the rule that rejected it and what that rule found."""


GROUNDING_SCHEMA = pa.schema([("id", pa.string()), ("grounding", pa.float64())])
"""Grounding of a leaf's rows in nats per answer token, kept beside them: thresholds change without another pass."""


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
upstream has it. `source` says where a row came from (curated, seed, document, raft, own, general, replay), `source_row` its id
there, or file and line.
`part` is *train*, or *validation* for a row that no model learns from and by which the epoch is chosen."""


def as_prompt(question: str, context: str | None) -> list[dict[str, str]]:
    """The messages by which a model is asked, in training and in evaluation alike: the context before the question."""
    return [{"role": "user", "content": f"{context}\n\n{question}" if context else question}]


EXCLUDED_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("leaf", pa.string()),
        ("question", pa.string()),
        ("rule", pa.string()),
        ("reason", pa.string()),
        ("repeats", pa.string()),
        ("similarity", pa.float64()),
    ]
)
"""Rows that a data set left out, with the rule that excluded them; `repeats` is the id of the row that stays in their place,
`similarity` how near they are (Jaccard, of content words). Ids are the rows' `source_row`."""


CATALOG_SCHEMA = pa.schema(
    [
        ("leaf", pa.string()),
        ("kind", pa.string()),
        ("state", pa.string()),
        ("rows", pa.int64()),
        ("generated", pa.int64()),
        ("curated", pa.string()),
        ("content", pa.string()),
        ("source", pa.string()),
        ("banned", pa.list_(pa.string())),
        ("note", pa.string()),
    ]
)
"""One row per leaf of the snapshot. `state`: *current*; *behind* (last good rows in use until its refresh succeeds);
*quarantined* (broken now; last good rows in use if there are any); *missing* (usable, never refreshed); *withdrawn* by a
person (no rows in use); *not generated*, as the settings say (its seeds and passages only). `content` is a hash of the rows'
texts and of the leaf's frozen source, which holds seeds and passages. `banned` are ids in the curated table that people
banned since: they are in use no more, though the leaf may be behind or broken."""


SNAPSHOT_SCHEMA = pa.schema(
    [
        ("leaf", pa.string()),
        ("kind", pa.string()),
        ("version", pa.int32()),
        ("schema_verdict", pa.string()),
        ("usable", pa.bool_()),
        ("fingerprint", pa.string()),
        ("seeds", pa.int32()),
        ("held_out", pa.int32()),
        ("documents", pa.list_(pa.string())),
        ("document_commit", pa.string()),
        ("contributor", pa.string()),
        ("attribution", pa.string()),
        (
            "problems",
            pa.list_(
                pa.struct([("file", pa.string()), ("line", pa.int32()), ("severity", pa.string()), ("message", pa.string())])
            ),
        ),
        (
            "heldout_questions",
            pa.list_(pa.struct([("question", pa.string()), ("answer", pa.string()), ("context", pa.string())])),
        ),
    ]
)
"""`usable` false = quarantined; the held-out questions are then those of the leaf's last good state. `fingerprint`
changes with whatever a prompt may show: seeds in use, description, passages."""
