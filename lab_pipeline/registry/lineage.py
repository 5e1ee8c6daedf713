"""What a model was taught by: the record that ships with it as `lineage.json`."""

from __future__ import annotations

from typing import Any

from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import read_json
from lab_pipeline.models.base_model import base_licence, hub_id
from lab_pipeline.taxonomy.attribution import works


def build_lineage(home: Home, evaluation: dict[str, Any], overrides: list[dict[str, str]]) -> dict[str, Any]:
    """The lineage of an evaluated model.

    Args:
        evaluation: what the evaluation of the model wrote down.
        overrides: author, reason and time of each promotion against the gate's verdict.
    """
    return {
        "model": evaluation["candidate"],
        "digest": evaluation["digest"],
        "base_model": evaluation["base_model"],
        "base_model_id": hub_id(evaluation["base_model"]),
        "base_licence": base_licence(home, evaluation["base_model"]),
        "taxonomy_commit": evaluation["taxonomy_commit"],
        "snapshot": evaluation["snapshot"],
        "evaluated_at": evaluation["evaluated_at"],
        "reference": evaluation["reference"],
        "verdict": evaluation["verdict"],
        "overrides": overrides,
        "leaves": [_leaf(home, leaf) for leaf in evaluation["leaves"]],
        "datasets": evaluation["datasets"],
        "checkpoints": evaluation["checkpoints"],
        "chosen": evaluation.get("chosen", {}),  # earlier releases chose nothing
        "recipe": evaluation["recipe"],
        "seed": evaluation["seed"],
        "heldout": evaluation["heldout"],
        "general": evaluation["general"],
    }


def _leaf(home: Home, leaf: dict[str, Any]) -> dict[str, Any]:
    """A leaf as the evaluation has it, with the works it rests on and what its rows were made from (None where an earlier
    release made them and did not write it down)."""
    made = home.provenance(leaf["leaf"], leaf["curated"])
    return {
        **{key: value for key, value in leaf.items() if key != "attribution"},
        "works": works(leaf["attribution"]),
        "made_from": read_json(made) if made.exists() else None,
    }
