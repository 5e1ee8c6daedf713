"""Tell contributors what their leaf brought: the questions that models won and lost when it came in, or was taken out."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TypedDict

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.evaluation import Evaluation
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import read_json
from lab_pipeline.core.verdict import what_is_left
from lab_pipeline.evaluation.details import QuestionResult


class LeafEffect(TypedDict):
    """What the last evaluation in which a leaf counted as changed says of its questions."""

    leaf: str
    evaluated_at: str
    candidate: str
    reference: str
    promoted: bool
    outcome: str
    questions: dict[str, int]
    """Number of the questions, by who wrote them: people or teacher."""
    loss: dict[str, float | None]
    """Mean loss of `candidate` and `reference`, in nats per answer token; None without questions."""
    won: list[str]
    """Questions whose right answer only the candidate chooses among others; `lost` are those that only the reference does."""
    lost: list[str]
    as_before: int
    """Number of the other questions in multiple choice."""
    taken_out: str | None
    """What a later model still knows of the leaf, if it was taken out since."""


def leaf_effect(home: Home, leaf: str) -> LeafEffect:
    """Read what the last evaluation in which this leaf counted as changed found.

    Raises:
        LabError: there is none, or an earlier release made it, which stored no single questions.
    """
    folders = sorted(home.evaluations.glob("*/evaluation.json"), key=lambda path: read_json(path)["evaluated_at"])
    evaluations: list[tuple[Path, Evaluation]] = [(path.parent, read_json(path)) for path in folders]
    found = [(folder, each) for folder, each in evaluations if leaf in each["changed"]]
    if not found:
        raise LabError(f"{leaf}: no model with it was evaluated yet; `lab-pipeline status` shows the leaves")
    folder, evaluation = found[-1]
    if not (folder / "questions.json").exists():
        raise LabError(f"{leaf}: an earlier release evaluated it, which kept no single questions; wait for its next change")
    asked: list[QuestionResult] = [each for each in read_json(folder / "questions.json") if each["leaf"] == leaf]
    reference = "base" if evaluation["reference"] == "base" else "champion"
    gone = [each for _, later in evaluations for each in later.get("unlearned", []) if each["leaf"] == leaf]
    return {
        "leaf": leaf,
        "evaluated_at": evaluation["evaluated_at"],
        "candidate": evaluation["candidate"],
        "reference": evaluation["reference"],
        "promoted": evaluation["verdict"]["promoted"],
        "outcome": evaluation["verdict"]["outcome"],
        "questions": {by: sum(each["by"] == by for each in asked) for by in ("people", "teacher")},
        "loss": {name: _mean(asked, role) for name, role in (("candidate", "candidate"), ("reference", reference))},
        "won": [each["question"] for each in asked if each["right"]["candidate"] and not each["right"][reference]],
        "lost": [each["question"] for each in asked if each["right"][reference] and not each["right"]["candidate"]],
        "as_before": sum(
            each["right"]["candidate"] is not None and each["right"]["candidate"] == each["right"][reference] for each in asked
        ),
        "taken_out": what_is_left(gone[-1]) if gone and leaf not in evaluations[-1][1]["catalog"] else None,
    }


def effect_text(effect: LeafEffect) -> str:
    """Format a leaf's effect for a terminal, the answer first."""
    reference = "the base model" if effect["reference"] == "base" else f"the champion {effect['reference']}"
    lines = [
        f"{effect['leaf']}: {len(effect['won'])} questions won, {len(effect['lost'])} lost, {effect['as_before']} as before "
        "(the right answer chosen among others)",
        f"Candidate {effect['candidate']} against {reference}, {effect['evaluated_at'][:10]}: "
        f"{'promoted' if effect['promoted'] else 'not promoted'}, {effect['outcome']}",
    ]
    before, after = effect["loss"]["reference"], effect["loss"]["candidate"]
    if before is not None and after is not None:
        people, teacher = effect["questions"]["people"], effect["questions"]["teacher"]
        lines.append(
            f"Loss {before:.3f} before, {after:.3f} after, in nats per answer token, over {people} questions by people and "
            f"{teacher} by the teacher"
        )
    else:
        lines.append("The leaf has no test question: write three seeds or more, so that one can be held out")
    lines += [f"  won:  {question}" for question in effect["won"]] + [f"  lost: {question}" for question in effect["lost"]]
    return "\n".join([*lines, *([f"Taken out since: {effect['taken_out']}"] if effect["taken_out"] else [])])


def _mean(asked: Sequence[QuestionResult], role: str) -> float | None:
    return fmean(each["losses"][role] for each in asked) if asked else None
