"""Compare two evaluated models: scores by leaf, answers, data and recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict

from lab_pipeline.core.evaluation import Evaluation
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import read_json
from lab_pipeline.reports.lineage import evaluations
from lab_pipeline.reports.models import share_right


class LeafScores(TypedDict):
    """What both models were measured at on one leaf; None where one was not."""

    leaf: str
    questions: tuple[int, int]
    losses: tuple[float | None, float | None]
    difference: float | None
    """Second minus first, in nats per answer token; None unless both answered the same number of questions."""
    right: tuple[str | None, str | None]


class Answered(TypedDict):
    """A test question that both models were seen to answer."""

    leaf: str
    question: str
    reference: str
    answers: tuple[str, str]


class DataChange(TypedDict):
    """How many rows of a leaf each model was trained on; `change` says how the second's data differ from the first's."""

    leaf: str
    rows: tuple[int | None, int | None]
    change: str


def report_folder(home: Home, evaluation: Evaluation) -> Path:
    """Return the folder of an evaluation's report in this home, which may have been moved since."""
    return home.evaluations / Path(evaluation["report"]).parent.name


def scores_by_leaf(one: Evaluation, other: Evaluation) -> list[LeafScores]:
    """Compare the losses and right answers of two candidates, leaf by leaf, those that changed most first."""
    leaves = one["heldout"]["leaves"].keys() | other["heldout"]["leaves"].keys()
    found = [_scores(leaf, one["heldout"]["leaves"].get(leaf), other["heldout"]["leaves"].get(leaf)) for leaf in leaves]
    return sorted(found, key=lambda each: (each["difference"] is None, -abs(each["difference"] or 0), each["leaf"]))


def whole_scores(one: Evaluation, other: Evaluation) -> list[LeafScores]:
    """Compare them on all held-out questions together, on those of leaves that were tested alike, and on the general ones."""
    whole = [_scores("all test questions", one["heldout"], other["heldout"])]
    if whole[0]["difference"] is None:
        whole += _tested_alike(scores_by_leaf(one, other))
    return [*whole, _scores("general questions", one["general"], other["general"])]


def _tested_alike(leaves: list[LeafScores]) -> list[LeafScores]:
    """Return the mean scores over the questions of the leaves that both models were tested on alike; nothing without any."""
    alike = [each for each in leaves if each["difference"] is not None]
    if not alike:
        return []
    count = sum(each["questions"][0] for each in alike)
    first, second = (sum((each["losses"][at] or 0) * each["questions"][0] for each in alike) / count for at in (0, 1))
    name = "those of leaves that were tested alike"
    return [
        LeafScores(leaf=name, questions=(count, count), losses=(first, second), difference=second - first, right=(None, None))
    ]


def _scores(name: str, one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> LeafScores:
    first, second = (each["candidate"] if each else None for each in (one, other))
    questions, more = (each["questions"] if each else 0 for each in (one, other))
    return {
        "leaf": name,
        "questions": (questions, more),
        "losses": (first, second),
        "difference": second - first if first is not None and second is not None and questions == more else None,
        "right": (_right(one), _right(other)),
    }


def _right(measured: Mapping[str, Any] | None) -> str | None:
    score = ((measured or {}).get("ranks") or {}).get("candidate")  # general questions are not ranked
    return share_right(score) if score else None


def answers_of_both(home: Home, one: str, other: str) -> list[Answered]:
    """Collect the questions that both models answered in any report, in which a model stands as candidate or as champion."""
    first, second = dict(_answers(home, one)), dict(_answers(home, other))
    return [
        {
            "leaf": shown["leaf"],
            "question": shown["question"],
            "reference": shown["answer"],
            "answers": (answer, second[question][1]),
        }
        for question, (shown, answer) in first.items()
        if question in second
    ]


def _answers(home: Home, model: str) -> Iterator[tuple[str, tuple[Mapping[str, Any], str]]]:
    for evaluation in evaluations(home).values():
        role = {evaluation["reference"]: "champion", evaluation["candidate"]: "candidate"}.get(model)
        details = report_folder(home, evaluation) / "details.json"
        if role and details.exists():
            stored = read_json(details)
            for shown in (*stored["gained"], *stored["lost"]):
                if role in shown.get("answers", {}):
                    yield shown["id"], (shown, shown["answers"][role])


def data_changes(one: Evaluation, other: Evaluation) -> list[DataChange]:
    """Compare what two models were trained on, leaf by leaf; equal leaves come last."""
    rows = [{leaf["leaf"]: leaf["rows"] for leaf in each["leaves"]} for each in (one, other)]
    changes = []
    for leaf in sorted(rows[0].keys() | rows[1].keys()):
        if leaf not in rows[1]:
            change = "taken out"
        elif leaf not in rows[0]:
            change = "added"
        else:
            change = "same" if one["catalog"].get(leaf) == other["catalog"].get(leaf) else "changed"
        changes.append(DataChange(leaf=leaf, rows=(rows[0].get(leaf), rows[1].get(leaf)), change=change))
    return sorted(changes, key=lambda each: each["change"] == "same")


def recipe_changes(one: Evaluation, other: Evaluation) -> list[tuple[str, Any, Any]]:
    """List what differs in recipe, seed, base model and chosen epochs, as (name, first, second)."""
    first, second = (dict(_flat(_made_by(each))) for each in (one, other))
    names = [*first, *(name for name in second if name not in first)]
    return [(name, first.get(name), second.get(name)) for name in names if first.get(name) != second.get(name)]


def _made_by(evaluation: Evaluation) -> Mapping[str, Any]:
    chosen = {f"{phase} phase, epoch": each["epoch"] for phase, each in evaluation.get("chosen", {}).items()}
    return {
        "base model": evaluation["base_model"],
        "taxonomy commit": evaluation["taxonomy_commit"],
        "seed": evaluation["seed"],
        **chosen,
        "recipe": evaluation["recipe"],
    }


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
