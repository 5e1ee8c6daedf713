"""Read a home's stored evaluations, and sum up the last ones for the report's history."""

from collections.abc import Mapping
from typing import TypedDict

from lab_pipeline.core.evaluation import Evaluation
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import read_json
from lab_pipeline.core.verdict import right_answers

_SHOWN = 12


class Try(TypedDict):
    """What one evaluated candidate came to."""

    candidate: str
    at: str
    promoted: bool
    outcome: str
    right: list[int] | None
    """Questions in multiple choice that it answers right, and their number; None without such a question."""
    loss: float | None
    """Mean loss on people's test questions, in nats per answer token."""


def evaluations(home: Home) -> dict[str, Evaluation]:
    """Return the last evaluation of each candidate, by id, in the order in which candidates were first evaluated."""
    found: list[Evaluation] = [read_json(path) for path in home.evaluations.glob("*/evaluation.json")]
    return {evaluation["candidate"]: evaluation for evaluation in sorted(found, key=lambda each: each["evaluated_at"])}


def last_tries(home: Home, evaluation: Evaluation) -> list[Try]:
    """Return the last candidates up to this one, the newest first."""
    every: Mapping[str, Evaluation] = {**evaluations(home), evaluation["candidate"]: evaluation}
    earlier = sorted(every.values(), key=lambda each: each["evaluated_at"], reverse=True)
    return [_try(each) for each in earlier if each["evaluated_at"] <= evaluation["evaluated_at"]][:_SHOWN]


def _try(evaluation: Evaluation) -> Try:
    right = right_answers(evaluation).get("candidate")
    return {
        "candidate": evaluation["candidate"],
        "at": evaluation["evaluated_at"],
        "promoted": evaluation["verdict"]["promoted"],
        "outcome": evaluation["verdict"]["outcome"],
        "right": list(right) if right else None,
        "loss": evaluation["heldout"]["candidate"],
    }
