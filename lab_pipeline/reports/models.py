"""List the models of a home: which were evaluated, how they stand, and where their weights are."""

from __future__ import annotations

from typing import Any

from lab_pipeline.core.home import Home
from lab_pipeline.core.verdict import right_answers
from lab_pipeline.evaluation.history import evaluations
from lab_pipeline.registry.champion import Move, champion_folder, history
from lab_pipeline.reports.lineage import standings


def known_models(home: Home) -> tuple[list[dict[str, Any]], list[Move]]:
    """Return the evaluated models, the last one first, and all moves of the champion's alias, the last one first.

    `folder` is None if a model's weights were removed; `right` says how many test questions it answers right by multiple
    choice.
    """
    roles = standings(home)
    found = []
    for name, evaluation in reversed(evaluations(home).items()):
        folder = champion_folder(home, name)
        right = right_answers(evaluation).get("candidate")  # evaluations of earlier releases have none
        found.append(
            {
                "model": name,
                "standing": roles.get(name, "candidate"),
                "evaluated_at": evaluation["evaluated_at"],
                "against": evaluation["reference"],
                "outcome": evaluation["verdict"]["outcome"],
                "reason": evaluation["verdict"]["reason"],
                "right": str(right) if right else None,
                "loss": evaluation["heldout"]["candidate"],
                "general_loss": evaluation["general"]["candidate"],
                "folder": str(folder) if folder.is_dir() else None,
            }
        )
    return found, history(home)[::-1]
