"""List the models of a home: which were evaluated, how they stand, and where their weights are."""

from __future__ import annotations

from typing import Any

from lab_pipeline.core.evaluation import ChoiceScore
from lab_pipeline.core.home import Home
from lab_pipeline.registry.champion import Move, champion_folder, history
from lab_pipeline.reports.lineage import evaluations, standings


def known_models(home: Home) -> tuple[list[dict[str, Any]], list[Move]]:
    """Return the evaluated models, the last one first, and all moves of the champion's alias, the last one first.

    `folder` is None if a model's weights were removed; `right` says how many test questions it answers right by multiple
    choice.
    """
    roles = standings(home)
    found = []
    for name, evaluation in reversed(evaluations(home).items()):
        folder = champion_folder(home, name)
        score = (evaluation["heldout"].get("ranks") or {}).get("candidate")  # evaluations of earlier releases have none
        found.append(
            {
                "model": name,
                "standing": roles.get(name, "candidate"),
                "evaluated_at": evaluation["evaluated_at"],
                "against": evaluation["reference"],
                "outcome": evaluation["verdict"]["outcome"],
                "reason": evaluation["verdict"]["reason"],
                "right": share_right(score) if score else None,
                "loss": evaluation["heldout"]["candidate"],
                "general_loss": evaluation["general"]["candidate"],
                "folder": str(folder) if folder.is_dir() else None,
            }
        )
    return found, history(home)[::-1]


def share_right(score: ChoiceScore) -> str:
    """Say how many questions are answered right by multiple choice, as '12 of 21'."""
    return f"{round(score['accuracy'] * score['questions'])} of {score['questions']}"
