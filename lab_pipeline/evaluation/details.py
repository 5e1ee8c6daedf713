"""What a report shows beside the scores: single questions with their answers, general categories, curves and costs."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from lab_pipeline.core.home import Home
from lab_pipeline.core.progress import Say
from lab_pipeline.core.storage import read_json, write_json, write_text
from lab_pipeline.evaluation.gate import Losses, compare
from lab_pipeline.evaluation.report import report_html, report_markdown
from lab_pipeline.models.answers import greedy_answers
from lab_pipeline.teacher.journal import read_journal

_SHOWN = 3
"""Questions shown of those that gained most, and of those that gained least."""


def write_report(
    home: Home,
    evaluation: dict[str, Any],
    heldout: dict[str, Any],
    scores: dict[str, dict[str, list[float]]],
    models: dict[str, Path],
    confidence: float,
    say: Say,
) -> None:
    """Write `report.md` where the evaluation says, and `details.json` and `report.html` beside it."""
    path = Path(evaluation["report"])
    details = report_details(home, evaluation, heldout, scores, models, confidence, say)
    write_json(path.with_name("details.json"), details)
    write_text(path.with_suffix(".html"), report_html(evaluation, details))
    write_text(path, report_markdown(evaluation))


def report_details(
    home: Home,
    evaluation: dict[str, Any],
    heldout: dict[str, Any],
    scores: dict[str, dict[str, list[float]]],
    models: dict[str, Path],
    confidence: float,
    say: Say,
) -> dict[str, Any]:
    """All that `report_html` needs beside the evaluation, as plain JSON values.

    `scores` and `models` (folders) have the keys base, candidate, and champion if there is one; differences are candidate
    minus champion, or minus base without one.
    """
    gained, lost = _extremes(heldout["leaves"], scores)
    say(f"asking {len(models)} models the {len(gained + lost)} questions that changed most")
    changed: list[Any] = gained + lost
    answers = {model: iter(greedy_answers(folder, changed)) for model, folder in models.items()}
    for question in gained + lost:
        question["answers"] = {model: next(each) for model, each in answers.items()}
    categories = [question["category"] for question in heldout["general"]]
    by_category: dict[str, dict[str, list[float]]] = {model: defaultdict(list) for model in scores}
    for model, losses in scores.items():
        for category, loss in zip(categories, losses["general"], strict=True):
            by_category[model][category].append(loss)
    checkpoints = {phase: home.checkpoints / name for phase, name in evaluation["checkpoints"].items()}
    versions = [read_json(folder / "meta.json")["versions"] for folder in checkpoints.values()]
    return {
        "confidence": confidence,
        "leaves": [_compared(leaf, scores, confidence) for leaf in sorted(heldout["leaves"])],
        "general": [_compared(category, by_category, confidence) for category in sorted(set(categories))],
        "gained": gained,
        "lost": lost,
        "training": {phase: read_json(folder / "report.json") for phase, folder in checkpoints.items()},
        "versions": versions[-1] if versions else {},
        "teacher": _teacher_costs(home, [leaf["leaf"] for leaf in evaluation["leaves"]]),
    }


def _reference(scores: dict[str, Any]) -> str:
    return "champion" if "champion" in scores else "base"


def _extremes(
    leaves: dict[str, list[dict[str, Any]]], scores: dict[str, dict[str, list[float]]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The questions that gained most, best first, and those that gained least or lost, worst first; none is in both."""
    questions = [
        {"leaf": leaf, **question, "losses": {model: scores[model][leaf][number] for model in scores}}
        for leaf, asked in sorted(leaves.items())
        for number, question in enumerate(asked)
    ]
    for question in questions:
        question["difference"] = question["losses"]["candidate"] - question["losses"][_reference(scores)]
    questions.sort(key=lambda question: question["difference"])
    return questions[:_SHOWN], questions[_SHOWN:][: -_SHOWN - 1 : -1]


def _compared(name: str, scores: dict[str, dict[str, list[float]]], confidence: float) -> dict[str, Any]:
    """Mean losses of all models over one leaf's or category's questions, and the candidate's difference."""
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


def _teacher_costs(home: Home, leaves: list[str]) -> dict[str, int]:
    """Calls and tokens that the leaves' journals hold: all that was ever asked for them, for this model or an earlier one."""
    replies = [reply for leaf in leaves for _, reply in read_journal(home.leaf(leaf) / "journal")]
    tokens = {kind: sum(getattr(reply, kind) for reply in replies) for kind in ("prompt_tokens", "completion_tokens")}
    return {"calls": len(replies), **tokens}
