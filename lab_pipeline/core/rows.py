"""Define the row types, and the Arrow schemas under which they are stored.

The stages of the pipeline hand each other these rows: seeds and passages of a leaf (`FrozenLeaf`) become generated, judged,
curated or rejected rows, and those become training rows. Each schema is checked when a table is written.
"""

from __future__ import annotations

from types import NoneType
from typing import Annotated, Any, Literal, NotRequired, TypedDict, get_args, get_origin, get_type_hints, is_typeddict

import pyarrow as pa

from lab_pipeline.core.errors import Severity

_ARROW: dict[Any, pa.DataType] = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}

Int32 = Annotated[int, pa.int32()]
"""An integer that tables store in 32 bits."""


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


class Turn(TypedDict):
    """One message of a conversation."""

    role: str
    content: str


class Question(TypedDict):
    """A question with its reference answer; `context` is the text that a grounded skill's question is asked on, else None."""

    question: str
    answer: str
    context: str | None


class SeedExample(Question):
    """A seed example that may be shown to the teacher; unlike in `Question`, knowledge seeds have a `context` too."""

    asked: str
    """The question as a model is asked it: in grounded skills after its context, in knowledge without the context."""


class Passage(TypedDict):
    """Plain text of one stretch of a document, with its place in the document."""

    document: str
    """Path of the document in its repository."""
    commit: str
    """Full commit id, or `worktree:<hash of the bytes>` for a plain folder."""
    heading: str
    """Headings above the passage, outermost first, joined by ' > '."""
    start: int
    end: int
    """`start` and `end` are the span of the passage in the document's normalised text, in characters; in snapshots of releases
    that froze no such text, in the source."""
    text: str
    place: NotRequired[str]
    """Where people find it in the file, such as 'pages 3 to 4', 'slide 2' or 'line 12'; '' where the format has no such places.
    Releases that froze no normalised text did not store it."""


class FrozenDocument(TypedDict):
    """A document as its reader found it. Spans of passages are character offsets in `text`, the normalised text."""

    path: str
    commit: str
    reader: str
    """Name and version of the reader, such as 'markdown 1'."""
    text: str


class FrozenLeaf(TypedDict):
    """What prompts to the teacher may show of a leaf; a snapshot stores it as a JSON file named by its fingerprint."""

    leaf: str
    kind: str
    task: str
    domain: str
    outline: str
    seeds: list[SeedExample]
    """Seeds in use; held-out questions are left out."""
    passages: list[Passage]
    """Passages of the leaf's documents; empty for skills."""
    documents: NotRequired[list[FrozenDocument]]
    """The leaf's documents; empty for skills. Older releases did not store them."""


class HeldoutQuestion(Question):
    """A held-out question, by which models are tested; `id` is a hash of question and context."""

    id: str
    wrong: NotRequired[list[str]]
    """Wrong answers that the teacher wrote beside an exam question, for multiple choice."""


class AcceptanceQuestion(TypedDict):
    """A question of people that a champion must pass; `lab_pipeline.taxonomy.acceptance` describes the fields."""

    leaf: str
    """Key of the leaf that the question belongs to; '' for a question of the whole taxonomy."""
    name: str
    question: str
    context: str | None
    any_of: list[str]
    all_of: list[str]
    none_of: list[str]
    declines: bool


class GeneralQuestion(TypedDict):
    """A question that belongs to no leaf: measured to show what a model forgot, or trained on to prevent forgetting."""

    id: str
    category: str
    question: str
    answer: str


class HeldoutSet(TypedDict):
    """The questions by which models are tested; no training row may repeat one of them or of `withheld`."""

    leaves: dict[str, list[HeldoutQuestion]]
    general: list[GeneralQuestion]
    withheld: list[str]
    """Prompts of all questions ever held out in this home, also of deleted seeds, withdrawn leaves and acceptance questions."""
    exam: NotRequired[dict[str, list[HeldoutQuestion]]]
    """Questions that the teacher wrote to test models, by leaf; earlier releases stored none."""
    acceptance: NotRequired[list[AcceptanceQuestion]]
    """Those of the leaves in use and those for every model; earlier releases stored none."""
    digest: str


class LeafProblem(TypedDict):
    """A problem of a leaf: an error makes the leaf unusable, a warning does not; `line` is 1-based."""

    file: str
    line: Int32
    severity: Severity
    message: str


class SnapshotRow(TypedDict):
    """One leaf of a taxonomy snapshot, with what was read from its folder; values that the folder lacks are None or empty. Some
    values of an unusable leaf are instead those of the previous snapshot (see `usable`)."""

    leaf: str
    kind: str | None
    version: Int32 | None
    schema_verdict: str
    """'valid' or 'invalid' by InstructLab's schemas."""
    usable: bool
    """False: the leaf is quarantined. `held_out`, `documents`, `document_commit`, `contributor`, `attribution` and
    `heldout_questions` are then those of its row in the previous snapshot, if it has one there."""
    fingerprint: str | None
    """Hash of the leaf's `FrozenLeaf` without commit ids, so it changes with all that a prompt may show; None if unusable."""
    seeds: Int32 | None
    held_out: Int32
    """Number of held-out seeds; `seeds` counts these and all others."""
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
    """The choice that the judge's reply names or finds most probable; 'unreadable' if there is none."""


class GeneratedRow(TypedDict):
    """A question with an answer that the teacher wrote, before curation."""

    id: str
    leaf: str
    kind: str
    context: str | None
    question: str
    """Question and answer can be None in an incomplete row (see `fault`)."""
    answer: str
    support: str | None
    """The text that must support the answer: a passage, or the row's context; None in freeform skills."""
    document: str | None
    document_commit: str | None
    span_start: int | None
    span_end: int | None
    """Path, commit and span in characters of the passage that the row was written from; None in skills."""
    taxonomy_commit: str
    flow: str
    flow_version: Int32
    teacher: str
    augmentation: str | None
    """The form of the passage that the teacher wrote the row from, such as a summary; None for the passage itself."""
    fault: str | None
    """Why the row is incomplete; None if it is complete."""
    scores: list[JudgeScore]
    """Scores by those judges of the flow that come before a stage; in a `JudgedRow` also by the judges of whole rows."""


JudgedRow = GeneratedRow
"""A generated row with the scores of all judges of the flow that judge such rows; incomplete rows get no further score."""


class ExamRow(JudgedRow):
    """A row that the teacher wrote as an exam question."""

    wrong: NotRequired[list[str]]
    """The wrong answers that it wrote beside it; earlier releases stored none."""


class CuratedRow(JudgedRow):
    """A row that curation kept."""

    advice: list[str]
    """What the flow's rules that only advise found, each as `rule: reason`."""


class RejectedRow(CuratedRow):
    """A row that curation rejected, with all its columns, the name of the rule or judge, and what that found."""

    rule: str
    reason: str


class CatalogEntry(TypedDict):
    """What one leaf contributes to the next model's training: its state, and counts and fingerprints of its data.

    The rows themselves are not here: they are those of the curated table `curated`, without the ids in `banned`. The leaf's
    seeds and passages are in the `FrozenLeaf` `source`.
    """

    leaf: str
    kind: str | None
    state: str
    """*current*; *behind* (stale: its last good rows are in use until its refresh succeeds); *quarantined* (broken now; last
    good rows in use if there are any); *missing* (usable, never refreshed); *withdrawn* by a person (no rows in use); *not
    generated*, as the settings say (its seeds and passages only)."""
    rows: int
    """Number of curated rows in use; `generated` is the number of rows that the teacher wrote for them."""
    generated: int
    curated: str | None
    """Fingerprint of the curated table."""
    content: str | None
    """Hash of ids and texts of the rows in use, and of `source`; None if the leaf contributes nothing."""
    source: str | None
    """Fingerprint of the `FrozenLeaf` with seeds and passages; None if the leaf contributes nothing."""
    banned: list[str]
    """Ids of rows in the curated table that people banned after it was made; they are not used in any state of the leaf."""
    note: str | None


class TrainingRow(TypedDict):
    """One conversation to train or validate on: the columns of instructlab-training, and where the row came from."""

    id: str
    messages: list[Turn]
    metadata: str
    """JSON text, as in InstructLab's data sets."""
    unmask: bool
    """True: the loss covers all of the text but the system message; False: only the answers."""
    leaf: str | None
    source: str
    """Where the row came from: curated, seed, document, raft, own (a custom data set), general, replay."""
    source_row: str
    """The row's id at its source; for a row of a custom data set, its file and line."""
    part: Split
    """The split. No model learns from *validation* rows; their loss decides which epoch's adapter is taken."""


class ExcludedRow(TypedDict):
    """The record of a row that was left out of a data set, and why; stored in a file beside the data set."""

    id: str
    """The row's `source_row`."""
    leaf: str | None
    question: str
    rule: str
    reason: str
    repeats: str | None
    """The `source_row` of the row that stays, if this row nearly repeats it; else None."""
    similarity: float | None
    """Jaccard similarity of the content words of these two rows; None if `repeats` is."""


class EpochChoice(TypedDict):
    """Which epoch's adapter a training phase took, of how many epochs, and why (a clause for people)."""

    epoch: int
    """Counted from 1; 0 if there was nothing to train."""
    of: int
    why: str


SNAPSHOT_SCHEMA = arrow_schema(SnapshotRow)
GENERATED_SCHEMA = arrow_schema(GeneratedRow)
JUDGED_SCHEMA = GENERATED_SCHEMA
EXAM_SCHEMA = arrow_schema(ExamRow)
CURATED_SCHEMA = arrow_schema(CuratedRow)
REJECTED_SCHEMA = arrow_schema(RejectedRow)
CATALOG_SCHEMA = arrow_schema(CatalogEntry)
TRAINING_SCHEMA = arrow_schema(TrainingRow)
EXCLUDED_SCHEMA = arrow_schema(ExcludedRow)


def as_prompt(question: str, context: str | None) -> list[Turn]:
    """Build the user message that asks a question, in training and evaluation alike: context, blank line, question."""
    return [{"role": "user", "content": f"{context}\n\n{question}" if context else question}]


def as_conversation(question: str, context: str | None, answer: str) -> list[Turn]:
    """Build the messages of an answered question: those of `as_prompt`, then the assistant's answer."""
    return [*as_prompt(question, context), {"role": "assistant", "content": answer}]


def is_document_instruction(row: GeneratedRow) -> bool:
    """Tell whether a row is a knowledge row that asks for another form of a passage, such as a summary.

    Of the knowledge rows, only these have a context.
    """
    return row["kind"] == "knowledge" and row["context"] is not None
