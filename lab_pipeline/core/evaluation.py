"""Type the stored record of an evaluation, which promotion, lineage and reports read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NotRequired, Required, TypedDict

from lab_pipeline.core.rows import EpochChoice


class Measurement(TypedDict):
    """Mean losses of base model, champion and candidate on the same questions, in nats per answer token.

    Each question counts equally. All losses are None without questions; `champion` is also None without a champion.
    """

    base: float | None
    champion: float | None
    candidate: float | None
    difference: float | None
    """Candidate minus base model, even if the gate compares the candidate with the champion; negative is better."""
    interval: list[float] | None
    """Two-sided confidence interval [low, high] of `difference` at level `gate.confidence`; None below two questions."""
    questions: int


class ChoiceScore(TypedDict):
    """How well a model picks reference answers in multiple choice; `evaluation/choices.py` says among which wrong ones."""

    questions: int
    """Number of questions that have a wrong choice; all other questions are left out."""
    accuracy: float
    """Share of questions whose reference answer the model finds likelier than every wrong choice."""
    reciprocal_rank: float
    """Mean of 1 / rank of the reference answer; the likeliest choice has rank 1."""
    by_guessing: float
    """Accuracy that random guessing is expected to have."""


class LeafMeasurement(Measurement):
    """Losses and multiple-choice scores on the held-out questions of one leaf."""

    ranks: dict[str, ChoiceScore | None]
    """Multiple-choice scores of 'base', 'champion' and 'candidate'; None without a champion, or without wrong choices."""


class HeldoutMeasurement(LeafMeasurement):
    """Losses and multiple-choice scores on the held-out questions of all leaves together, and on those of each leaf."""

    leaves: dict[str, LeafMeasurement]


class LeafFinding(TypedDict):
    """A `lab_pipeline.evaluation.gate.LeafVerdict` as stored."""

    leaf: str
    role: str
    finding: str
    veto: bool
    comparison: NotRequired[Mapping[str, Any] | None]
    """A `Comparison` of candidate and reference; None without questions. Earlier releases stored none."""


class VerdictRecord(TypedDict):
    """A `lab_pipeline.evaluation.gate.Verdict` as stored."""

    promoted: bool
    outcome: str
    reason: str
    gain: NotRequired[Mapping[str, Any] | None]
    leaves: list[LeafFinding]


class JudgedMean(TypedDict):
    """Number, mean score and mean word count of those answers of one model that a judge could grade."""

    answers: int
    score: float
    """From 0 (wrong) to 1 (right)."""
    words: float


class JudgedDifference(TypedDict):
    """Mean judged score of the candidate minus that of the reference: the champion, or the base model if there is none."""

    difference: float
    """From -1 to 1; positive is better."""
    interval: list[float] | None
    """Two-sided confidence interval [low, high] at level `gate.confidence`; None for a single question."""


class LengthAdjusted(JudgedDifference):
    """The difference in judged score if the answers of candidate and reference were equally long: judges favour long answers.

    It is the intercept of a least-squares fit of the score difference on the length difference of each question's two answers
    (see `lab_pipeline.evaluation.judged`).
    """

    slope: float
    """Rise of the score difference per unit of length difference, where length is log(1 + number of words)."""


class Agreement(TypedDict):
    """How far a judge agrees with itself if it reads the same answers several times.

    The last four fields are None if nothing can be compared; `lab_pipeline.evaluation.grading.agreement` defines them.
    """

    graded: int
    """Number of answers with a readable verdict in both orders: reference first and answer first."""
    not_graded: int
    unreadable_replies: int
    alike: float | None
    """Share of graded answers with the same verdict in all readings."""
    repeats: float | None
    """Share of pairs of readings in the same order that give the same verdict."""
    orders: float | None
    """Share of pairs of readings in different orders that give the same verdict."""
    order_shift: float | None
    """Mean score with the reference first minus mean score with the answer first."""


class Separation(TypedDict):
    """How well a judge's scores tell good rows from bad ones, measured on rows that are known to be good or bad."""

    area: float
    """Area under the ROC curve: the share of pairs of a good and a bad row in which the good row scores higher."""
    interval: list[float]
    """95 % confidence interval [low, high] of `area`."""
    separates: bool
    """Whether `area` is at least `lab_pipeline.teacher.judging.SEPARATES`, so that the judge may decide."""


class KnownSeparation(Separation):
    """How well the judge of models' answers separates `evaluation.known_rows.KNOWN_ROWS`, the number of these rows, and how far
    its readings of them agree."""

    rows: int
    agreement: Agreement


class JudgedScores(TypedDict, total=False):
    """Mean judged scores by model and leaf, and the candidate's difference from the reference."""

    models: dict[str, JudgedMean | None]
    """Means over all leaves, by model; None if none of the model's answers could be graded."""
    leaves: dict[str, dict[str, JudgedMean | None]]
    """Means of each leaf, by leaf key and then by model."""
    compared: int
    """Number of questions behind `raw` and `equal_length`: the answers of both candidate and reference are graded, and the
    leaf is not in `gate.allowed_regressions`."""
    raw: JudgedDifference | None
    """None if no question can be compared."""
    equal_length: LengthAdjusted | None
    """None if fewer than three questions can be compared, or if lengths always differ by the same factor (no slope fits)."""


class JudgedAnswers(JudgedScores, total=False):
    """What a judge found in the models' answers; if it did not answer, only `judge` and `unanswered` are present."""

    judge: Required[str]
    unanswered: Required[str | None]
    """Why the judge did not answer; None if it did."""
    known_rows: KnownSeparation
    agreement: Agreement


class AcceptanceResult(TypedDict):
    """What the models answered to an acceptance question, and which of the answers pass."""

    leaf: str
    """Key of the leaf that the question belongs to; '' if every model is asked."""
    name: str
    question: str
    answers: dict[str, str]
    """By model, as decoded greedily."""
    failures: dict[str, str | None]
    """By model, why the answer does not pass; None if it does."""


class TaskMeasure(TypedDict):
    """How the models do in a task of lm-eval; `difference` is the candidate's score minus the reference's."""

    task: str
    metric: str
    questions: int
    scores: dict[str, float]
    """Mean score by model, from 0 to 1; higher is better."""
    difference: float
    interval: list[float] | None
    """Two-sided confidence interval [low, high] of `difference`, question by question; None for a single question."""
    tolerance: float | None
    """Loss of score that is tolerated, if the task decides; None if it advises."""


class Unlearned(TypedDict):
    """What the models know of a leaf that the champion was trained on and the candidate was not: losses in nats per token."""

    leaf: str
    questions: int
    base: float
    champion: float
    candidate: float
    interval: list[float] | None
    """Confidence interval of the candidate's loss minus the base model's, widened by retrain noise; None for one question."""
    still_known: float
    """Share that the candidate has of what the champion had learned; 0 unless the candidate is surely better than the base."""


class EvaluatedLeaf(TypedDict):
    """A leaf that a candidate was trained on: some columns of its `CatalogEntry` and of its `SnapshotRow`."""

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
    """What a candidate was trained from and how; digests of data sets, ids of checkpoints and epoch choices are by phase."""

    datasets: dict[str, str]
    checkpoints: dict[str, str]
    chosen: dict[str, EpochChoice]
    recipe: Mapping[str, Any]
    seed: int


class EvaluatedModel(Provenance):
    """What a candidate was trained from, how it was measured, and the verdict; stored in its evaluation and its lineage."""

    digest: str
    """Hash of the candidate's files."""
    reference: str
    """Id of the champion that the candidate was compared with, or 'base'."""
    base_model: str
    taxonomy_commit: str
    snapshot: str
    verdict: VerdictRecord
    heldout: HeldoutMeasurement
    exam: NotRequired[HeldoutMeasurement]
    """Likewise `heldout`, on the questions that the teacher wrote; earlier releases stored none."""
    general: Measurement
    unlearned: NotRequired[list[Unlearned]]
    """One for each leaf with questions that the champion was trained on and the candidate was not; earlier releases: none."""
    evaluated_at: str


class Evaluation(EvaluatedModel):
    """What the evaluation of a candidate found and decided; stored as `evaluation.json`."""

    inputs: str
    """Fingerprint of all that a retune's outcome depends on (`lab_pipeline.evaluation.evaluate.retune_inputs`)."""
    candidate: str
    catalog: dict[str, str]
    """Content hash of each leaf that the candidate was trained on, by leaf key."""
    changed: list[str]
    """Leaves whose present rows the reference was not trained on; all leaves if only recipe or base model changed."""
    judged: JudgedAnswers | None
    """None if the settings name no judge that grades answers."""
    policy: NotRequired[Mapping[str, Any]]
    """The settings' section `gate` by which it was decided; earlier releases stored none."""
    measures: NotRequired[list[TaskMeasure]]
    """One for each task of lm-eval that the settings name; earlier releases stored none."""
    acceptance: NotRequired[list[AcceptanceResult]]
    """One for each acceptance question; earlier releases stored none."""
    leaves: list[EvaluatedLeaf]
    report: str
    """Path of the Markdown report; as stored, it starts at the home."""
