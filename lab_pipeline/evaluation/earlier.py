"""Collect what earlier nights show of the noise of a retrain: how leaves whose rows had not changed differed all the same."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab_pipeline.core.evaluation import Evaluation
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import read_json
from lab_pipeline.evaluation.details import QuestionResult
from lab_pipeline.evaluation.gain import Losses

NIGHTS = 20
"""Maximum number of earlier evaluations that count, the latest ones; older leaves and rows say less of today's."""

_HARMLESS = ("better", "no worse", "not better", "not enough evidence")
"""Outcomes of candidates that did no harm. The gain of others is not tested, so their differences are not the noise in it."""


def earlier_nights(home: Home, candidate: str, recipe: Mapping[str, Any], base_model: str) -> list[Losses]:
    """Return, for each earlier night, the losses of candidate and champion on the leaves that had not changed.

    Only nights with the same recipe and base model count, and each pair of models once. The candidate under test, which may
    have been evaluated before, is left out.

    Args:
        candidate: hash of its files.
    """
    found: dict[tuple[str, str], tuple[str, Path]] = {}
    for path in home.evaluations.glob("*/evaluation.json"):
        night: Evaluation = read_json(path)
        alike = (night["recipe"], night["base_model"]) == (recipe, base_model) and night["verdict"]["outcome"] in _HARMLESS
        compared = night["reference"] != "base" and night["digest"] != candidate
        if alike and compared and path.with_name("questions.json").exists():
            found[night["digest"], night["reference"]] = night["evaluated_at"], path
    return [_unchanged(path) for _, path in sorted(found.values())[-NIGHTS:]]


def _unchanged(evaluation: Path) -> Losses:
    leaves = read_json(evaluation)["verdict"]["leaves"]
    unchanged = {leaf["leaf"] for leaf in leaves if leaf["role"] == "unchanged"}
    results: list[QuestionResult] = read_json(evaluation.with_name("questions.json"))
    losses = defaultdict(list)
    for result in results:
        if result["leaf"] in unchanged:
            losses[result["leaf"]].append((result["losses"]["candidate"], result["losses"]["champion"]))
    return dict(losses)
