"""Define the row types, and the Arrow schemas under which they are stored.

The stages of the pipeline hand each other these rows: seeds and passages of a leaf (`FrozenLeaf`) become generated, judged,
curated or rejected rows, and those become training rows. Each schema is checked when a table is written.
"""

from __future__ import annotations

from types import NoneType
from typing import Annotated, Any, Literal, TypedDict, get_args, get_origin, get_type_hints, is_typeddict

import pyarrow as pa

_ARROW: dict[Any, pa.DataType] = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}

Int32 = Annotated[int, pa.int32()]
"""A number that tables hold in 32 bits."""


def arrow_schema(row: type) -> pa.Schema:
    """Derive the Arrow schema under which rows of a TypedDict are stored; every column may be null."""
    return pa.schema([(name, _arrow_type(hint)) for name, hint in get_type_hints(row, include_extras=True).items()])


def _arrow_type(hint: Any) -> pa.DataType:
    arguments = [each for each in get_args(hint) if each is not NoneType]
    if get_origin(hint) is Annotated:
        return arguments[1]
    if get_origin(hint) is Literal:
        return pa.string()
    if get_origin(hint) is list:
        return pa.list_(_arrow_type(arguments[0]))
    if is_typeddict(hint):
        return pa.struct(arrow_schema(hint))
    return _arrow_type(arguments[0]) if arguments else _ARROW[hint]


Split = Literal["train", "validation"]
Severity = Literal["error", "warning"]


class Turn(TypedDict):
    """One message of a conversation."""

    role: str
    content: str


class Question(TypedDict):
    """A question with its reference answer; a grounded skill's also has its context."""

    question: str
    answer: str
    context: str | None


class SeedExample(Question):
    """A seed example that may be shown to the teacher."""

    asked: str
    """The prompt: context and question."""


class Passage(TypedDict):
    """Plain text of one stretch of a document."""

    document: str
    commit: str
    heading: str
    """Headings above the passage, outermost first, joined by ' > '."""
    start: int
    end: int
    """Span of the source text, in characters."""
    text: str


class FrozenLeaf(TypedDict):
    """What a leaf's prompts may show, as a snapshot found it; stored as JSON under its fingerprint."""

    leaf: str
    kind: str
    task: str
    domain: str
    outline: str
    seeds: list[SeedExample]
    passages: list[Passage]


class HeldoutQuestion(Question):
    """A question of the test."""

    id: str


class GeneralQuestion(TypedDict):
    """A question of no leaf: those measured show forgetting, those replayed prevent it."""

    id: str
    category: str
    question: str
    answer: str


class HeldoutSet(TypedDict):
    """The questions that models are tested by; no prompt or training row may repeat them."""

    leaves: dict[str, list[HeldoutQuestion]]
    general: list[GeneralQuestion]
    withheld: list[str]
    """Prompts of all questions that were ever held out."""
    digest: str


class LeafProblem(TypedDict):
    """What is wrong with a leaf, and where."""

    file: str
    line: Int32
    severity: Severity
    message: str


class SnapshotRow(TypedDict):
    """One leaf of a taxonomy snapshot."""

    leaf: str
    kind: str | None
    version: Int32 | None
    schema_verdict: str
    usable: bool
    """False: the leaf is quarantined, and `heldout_questions` are those of its last usable state."""
    fingerprint: str | None
    """Changes with whatever a prompt may show: seeds in use, description, passages."""
    seeds: Int32 | None
    held_out: Int32
    documents: list[str]
    document_commit: str | None
    contributor: str | None
    attribution: str | None
    problems: list[LeafProblem]
    heldout_questions: list[Question]


class JudgeScore(TypedDict):
    """One judge's verdict on one row."""

    judge: str
    score: float | None
    """From 0, bad, to 1, good; None where no verdict could be read."""
    verdict: str
    """The judge's most probable choice, or 'unreadable'."""


class GeneratedRow(TypedDict):
    """A candidate that the teacher wrote, unfiltered."""

    id: str
    leaf: str
    kind: str
    context: str | None
    question: str
    """Null only in an incomplete row, as is `answer`."""
    answer: str
    support: str | None
    """The text that must support the answer: a passage, or the context."""
    document: str | None
    document_commit: str | None
    span_start: int | None
    span_end: int | None
    taxonomy_commit: str
    flow: str
    flow_version: Int32
    teacher: str
    augmentation: str | None
    """The form of the passage that the teacher wrote from, such as a summary; None for the passage itself."""
    fault: str | None
    """Why the row is incomplete; None if it is complete."""
    scores: list[JudgeScore]
    """Independent of the flow's thresholds, which curation applies."""


JudgedRow = GeneratedRow
"""A generated row with the scores of all judges."""


class CuratedRow(JudgedRow):
    """A row that curation kept."""

    grounding: float | None
    """See `lab_pipeline.curation.grounding`; None where the flow does not ask for it."""


class RejectedRow(CuratedRow):
    """A row that curation rejected, whole."""

    rule: str
    reason: str
    """What the rule found."""


class GroundingRow(TypedDict):
    """A row's grounding score, kept apart from the flow's threshold for it."""

    id: str
    grounding: float | None


class CatalogEntry(TypedDict):
    """One leaf of the instruction catalog: which of its rows go into the next model, and in which state they are."""

    leaf: str
    kind: str | None
    state: str
    """*current*; *behind* (stale: its last good rows are in use until its refresh succeeds); *quarantined* (broken now; last
    good rows in use if there are any); *missing* (usable, never refreshed); *withdrawn* by a person (no rows in use); *not
    generated*, as the settings say (its seeds and passages only)."""
    rows: int
    generated: int
    curated: str | None
    """Fingerprint of the curated table."""
    content: str | None
    """Hash of the rows' texts and of the leaf's frozen source, which holds seeds and passages."""
    source: str | None
    """Fingerprint of the frozen source; None if the leaf contributes nothing."""
    banned: list[str]
    """Ids of curated rows that people banned since; they are no longer used, even if the leaf is stale or broken."""
    note: str | None


class TrainingRow(TypedDict):
    """One conversation to train or validate on, in the columns of instructlab-training and more."""

    id: str
    messages: list[Turn]
    metadata: str
    """JSON text, as upstream has it."""
    unmask: bool
    """True: the loss covers the whole text but the system message; False: the answers only."""
    leaf: str | None
    source: str
    """Where the row came from: curated, seed, document, raft, own (a custom data set), general, replay."""
    source_row: str
    """The row's id at its source, or file and line."""
    part: Split
    """The split; no model learns from *validation* rows, by which the epoch is chosen."""


class ExcludedRow(TypedDict):
    """A row that a data set left out."""

    id: str
    """The row's `source_row`."""
    leaf: str | None
    question: str
    rule: str
    reason: str
    repeats: str | None
    """Id of the row that stays in its place."""
    similarity: float | None
    """Jaccard similarity of the two rows' content words."""


class EpochChoice(TypedDict):
    """Which epoch's adapter a training phase chose."""

    epoch: int
    of: int
    why: str


SNAPSHOT_SCHEMA = arrow_schema(SnapshotRow)
GENERATED_SCHEMA = arrow_schema(GeneratedRow)
JUDGED_SCHEMA = GENERATED_SCHEMA
CURATED_SCHEMA = arrow_schema(CuratedRow)
REJECTED_SCHEMA = arrow_schema(RejectedRow)
GROUNDING_SCHEMA = arrow_schema(GroundingRow)
CATALOG_SCHEMA = arrow_schema(CatalogEntry)
TRAINING_SCHEMA = arrow_schema(TrainingRow)
EXCLUDED_SCHEMA = arrow_schema(ExcludedRow)


def as_prompt(question: str, context: str | None) -> list[Turn]:
    """Build the messages by which a model is asked, in training and evaluation alike: the context before the question."""
    return [{"role": "user", "content": f"{context}\n\n{question}" if context else question}]


def as_conversation(question: str, context: str | None, answer: str) -> list[Turn]:
    """Build the messages of a question that is asked by `as_prompt` and answered."""
    return [*as_prompt(question, context), {"role": "assistant", "content": answer}]


def is_document_instruction(row: GeneratedRow) -> bool:
    """Tell whether a row asks for another form of a passage, and so has the passage as its context."""
    return row["kind"] == "knowledge" and row["context"] is not None
