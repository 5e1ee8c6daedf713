"""Type the stored record of an evaluation, which promotion, lineage and reports read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Required, TypedDict

from lab_pipeline.core.rows import EpochChoice


class Measurement(TypedDict):
    """Mean losses of all models on some questions, in nats per answer token; None where nothing could be measured."""

    base: float | None
    champion: float | None
    candidate: float | None
    difference: float | None
    """Candidate minus base."""
    interval: list[float] | None
    questions: int


class ChoiceScore(TypedDict):
    """How well a model picks reference answers in multiple choice."""

    questions: int
    accuracy: float
    reciprocal_rank: float
    by_guessing: float


class LeafMeasurement(Measurement):
    """Losses and multiple-choice scores on one leaf."""

    ranks: dict[str, ChoiceScore | None]
    """By model."""


class HeldoutMeasurement(LeafMeasurement):
    """The same over all leaves, and for each of them."""

    leaves: dict[str, LeafMeasurement]


class LeafFinding(TypedDict):
    """`lab_pipeline.evaluation.gate.LeafVerdict` as JSON, without its `comparison`."""

    leaf: str
    role: str
    finding: str
    veto: bool


class VerdictRecord(TypedDict):
    """`lab_pipeline.evaluation.gate.Verdict` as JSON, without its `gain`."""

    promoted: bool
    outcome: str
    reason: str
    leaves: list[LeafFinding]


class JudgedMean(TypedDict):
    """Means over the graded answers of a model."""

    answers: int
    score: float
    """From 0, wrong, to 1, right."""
    words: float


class JudgedDifference(TypedDict):
    """Candidate minus reference, in judged scores."""

    difference: float
    interval: list[float] | None


class LengthAdjusted(JudgedDifference):
    """The difference that answers of equal length would have."""

    slope: float
    """Score per unit of log word count."""


class Agreement(TypedDict):
    """How far a judge's readings agree; see `lab_pipeline.evaluation.grading.agreement`."""

    graded: int
    not_graded: int
    unreadable_replies: int
    alike: float | None
    repeats: float | None
    orders: float | None
    order_shift: float | None


class Separation(TypedDict):
    """How well a judge's scores separate rows whose verdict is known."""

    area: float
    """Area under the ROC curve."""
    interval: list[float]
    separates: bool


class KnownSeparation(Separation):
    """The same with the number of rows, and how far the judge's readings of them agree."""

    rows: int
    agreement: Agreement


class JudgedScores(TypedDict, total=False):
    """Scores by model and leaf, and the candidate's difference from the reference."""

    models: dict[str, JudgedMean | None]
    leaves: dict[str, dict[str, JudgedMean | None]]
    """By leaf and model."""
    compared: int
    raw: JudgedDifference | None
    equal_length: LengthAdjusted | None


class JudgedAnswers(JudgedScores, total=False):
    """What a judge found in the models' answers; only `judge` and why it is `unanswered`, if it is."""

    judge: Required[str]
    unanswered: Required[str | None]
    known_rows: KnownSeparation
    agreement: Agreement


class EvaluatedLeaf(TypedDict):
    """A leaf that a model was trained on: columns of its catalog entry and of its snapshot row."""

    leaf: str
    kind: str | None
    rows: int
    state: str
    curated: str | None
    source: str | None
    contributor: str | None
    document_commit: str | None
    documents: list[str]
    attribution: str | None


class Provenance(TypedDict):
    """What a candidate was trained from and how, by phase."""

    datasets: dict[str, str]
    checkpoints: dict[str, str]
    chosen: dict[str, EpochChoice]
    recipe: Mapping[str, Any]
    seed: int


class EvaluatedModel(Provenance):
    """What a candidate was trained from and how it was measured; stored in its evaluation and its lineage."""

    digest: str
    """Hash of the candidate's files."""
    reference: str
    """Id of the champion that the candidate was compared with, or 'base'."""
    base_model: str
    taxonomy_commit: str
    snapshot: str
    verdict: VerdictRecord
    heldout: HeldoutMeasurement
    general: Measurement
    evaluated_at: str


class Evaluation(EvaluatedModel):
    """What the evaluation of a candidate found and decided; stored as `evaluation.json`."""

    inputs: str
    """Fingerprint of all that the outcome depends on."""
    candidate: str
    catalog: dict[str, str]
    """Content hash of each leaf that the candidate was trained on."""
    changed: list[str]
    judged: JudgedAnswers | None
    leaves: list[EvaluatedLeaf]
    report: str
    """Path of the Markdown report."""
