"""Collect what a report shows beside the scores: single questions with answers, general categories, history, curves, costs."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, NotRequired, TypedDict

from lab_pipeline.core.evaluation import Evaluation
from lab_pipeline.core.home import Home
from lab_pipeline.core.progress import Say
from lab_pipeline.core.rows import HeldoutQuestion, HeldoutSet
from lab_pipeline.core.storage import read_json
from lab_pipeline.evaluation.choices import Ranks
from lab_pipeline.evaluation.gain import Losses
from lab_pipeline.evaluation.gate import compare
from lab_pipeline.evaluation.history import Try, last_tries
from lab_pipeline.evaluation.measured_model import EXAM, MeasuredModel
from lab_pipeline.models.answers import greedy_answers
from lab_pipeline.teacher.journal import read_journal

_SHOWN = 3
"""Maximum number of questions that a report shows with answers that the candidate won or gained on most, and as many others."""

Scores = Mapping[str, Mapping[str, Sequence[float]]]
"""Loss of each question, by model (base, candidate, and champion if there is one) and leaf. General questions are under the
key `general`, or each under its category."""


class GroupLosses(TypedDict):
    """Mean losses over the questions of a leaf or a category, in nats per answer token; None without questions."""

    name: str
    questions: int
    losses: dict[str, float | None]
    """By model."""
    difference: float | None
    """Candidate minus champion, or minus base without a champion."""
    interval: list[float] | None
    """Confidence interval of the difference. For a single question, both ends are the difference itself."""


class ShownQuestion(HeldoutQuestion):
    """A held-out question with each model's loss on the reference answer, and the answer that each model gives."""

    leaf: str
    losses: dict[str, float]
    difference: float
    """Candidate minus champion, or minus base without a champion."""
    right: dict[str, bool | None]
    """As in `QuestionResult`."""
    answers: NotRequired[dict[str, str]]
    """Greedily decoded, by model."""


class QuestionResult(TypedDict):
    """What the models did with one question; stored as `questions.json` in the report's folder."""

    leaf: str
    by: Literal["people", "teacher"]
    question: str
    losses: dict[str, float]
    """By model."""
    right: dict[str, bool | None]
    """By model, whether it chooses the reference answer among others; None without others."""


class ReportDetails(TypedDict):
    """What the HTML report of an evaluation shows beside it; stored as `details.json` in the report's folder."""

    confidence: float
    leaves: list[GroupLosses]
    exam: list[GroupLosses]
    """On the teacher's exam questions, by leaf."""
    general: list[GroupLosses]
    """By category."""
    gained: list[ShownQuestion]
    """Questions that only the candidate answers right in multiple choice, then others, each by the fall of their loss."""
    lost: list[ShownQuestion]
    """Questions that only the model before it answers right, then others, each by the rise of their loss."""
    history: list[Try]
    training: dict[str, Mapping[str, Any]]
    """`lab_pipeline.training.train.TrainingReport` as JSON, by phase."""
    versions: dict[str, str]
    """Versions of the packages that trained the last phase."""
    teacher: dict[str, int]
    """Calls and tokens of all replies in the journals of the candidate's leaves, for this model or an earlier one."""


def report_details(
    home: Home,
    evaluation: Evaluation,
    heldout: HeldoutSet,
    scores: Scores,
    results: Sequence[QuestionResult],
    models: Mapping[str, MeasuredModel],
    say: Say,
) -> ReportDetails:
    """Collect the report's details: losses by leaf and category, single questions, training reports, and teacher calls.

    Each of `models` is loaded and answers the few questions that changed most.

    Args:
        scores: losses of the same models on all questions of `heldout`.
        results: what `question_results` makes of them.
    """
    confidence = evaluation["policy"]["confidence"]
    gained, lost = _extremes(heldout["leaves"], results)
    say(f"asking {len(models)} models the {len(gained + lost)} questions that changed most")
    answers = {name: greedy_answers(model.folder, gained + lost) for name, model in models.items()}
    for number, question in enumerate(gained + lost):
        question["answers"] = {name: answers[name][number] for name in models}
    categories = [question["category"] for question in heldout["general"]]
    by_category: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in scores}
    for name, losses in scores.items():
        for category, loss in zip(categories, losses["general"], strict=True):
            by_category[name][category].append(loss)
    checkpoints = {phase: home.checkpoints / name for phase, name in evaluation["checkpoints"].items()}
    versions = [read_json(folder / "meta.json")["versions"] for folder in checkpoints.values()]
    return {
        "confidence": confidence,
        "leaves": [_compare_group(leaf, scores, confidence) for leaf in sorted(heldout["leaves"])],
        "exam": [
            {**_compare_group(f"{EXAM}{leaf}", scores, confidence), "name": leaf} for leaf in sorted(heldout.get("exam", {}))
        ],
        "general": [_compare_group(category, by_category, confidence) for category in sorted(set(categories))],
        "gained": gained,
        "lost": lost,
        "history": last_tries(home, evaluation),
        "training": {phase: read_json(folder / "report.json") for phase, folder in checkpoints.items()},
        "versions": versions[-1] if versions else {},
        "teacher": _teacher_costs(home, [leaf["leaf"] for leaf in evaluation["leaves"]]),
    }


def question_results(asked: Mapping[str, Sequence[HeldoutQuestion]], scores: Scores, ranks: Ranks) -> list[QuestionResult]:
    """Return what each model did with each question, leaf by leaf, in the order of `asked`."""
    return [
        {
            "leaf": leaf.removeprefix(EXAM),
            "by": "teacher" if leaf.startswith(EXAM) else "people",
            "question": question["question"],
            "losses": {model: scores[model][leaf][number] for model in scores},
            "right": {model: rank["rank"] == 1 if (rank := ranks[model][leaf][number]) else None for model in ranks},
        }
        for leaf, questions in asked.items()
        for number, question in enumerate(questions)
    ]


def _reference(models: Collection[str]) -> str:
    return "champion" if "champion" in models else "base"


def _extremes(
    leaves: Mapping[str, Sequence[HeldoutQuestion]], results: Sequence[QuestionResult]
) -> tuple[list[ShownQuestion], list[ShownQuestion]]:
    """Return the `gained` and the `lost` questions of a report, at most `_SHOWN` of each.

    A question is in one list only; with few questions, `lost` has fewer.
    """
    questions: list[ShownQuestion] = []
    asked = [(leaf, question) for leaf, each in leaves.items() for question in each]
    for (leaf, question), result in zip(asked, [each for each in results if each["by"] == "people"], strict=True):
        losses, right = result["losses"], result["right"]
        difference = losses["candidate"] - losses[_reference(losses)]
        questions.append({"leaf": leaf, **question, "losses": losses, "difference": difference, "right": right})

    def change(question: ShownQuestion) -> tuple[int, float, str]:
        right = question["right"]
        return bool(right[_reference(right)]) - bool(right["candidate"]), question["difference"], question["id"]

    questions.sort(key=change)
    return questions[:_SHOWN], questions[_SHOWN:][: -_SHOWN - 1 : -1]


def _compare_group(name: str, scores: Scores, confidence: float) -> GroupLosses:
    losses = {model: scores[model].get(name, []) for model in scores}
    pairs: Losses = {name: list(zip(losses["candidate"], losses[_reference(scores)], strict=True))}
    compared = compare(pairs, confidence)
    return {
        "name": name,
        "questions": len(losses["candidate"]),
        "losses": {model: sum(values) / len(values) if values else None for model, values in losses.items()},
        "difference": compared.difference if compared else None,
        "interval": list(compared.interval or (compared.difference, compared.difference)) if compared else None,
    }


def _teacher_costs(home: Home, leaves: Sequence[str]) -> dict[str, int]:
    journals = [home.leaf(leaf) / name for leaf in leaves for name in ("journal", "exam-journal")]
    replies = [reply for journal in journals for _, reply in read_journal(journal)]
    tokens = {kind: sum(getattr(reply, kind) for reply in replies) for kind in ("prompt_tokens", "completion_tokens")}
    return {"calls": len(replies), **tokens}
