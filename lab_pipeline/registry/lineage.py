"""Record what a model was trained on; the record ships with the model as `lineage.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from lab_pipeline.core.evaluation import Evaluation
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import read_json
from lab_pipeline.models.base_model import base_licence, hub_id
from lab_pipeline.taxonomy.attribution import works


class Override(TypedDict):
    """A person's promotion against the gate's verdict."""

    author: str
    reason: str
    at: str


class Lineage(TypedDict):
    """What a model was trained on and how it was measured."""

    model: str
    digest: str
    base_model: str
    base_model_id: str | None
    base_licence: str
    taxonomy_commit: str
    snapshot: str
    evaluated_at: str
    reference: str
    verdict: Mapping[str, Any]
    overrides: list[Override]
    leaves: list[dict[str, Any]]
    """Each leaf as in the evaluation, with `works` instead of its attribution, and `made_from`: flow, prompts, teacher and
    judge of its rows, None if an earlier release did not record them."""
    datasets: dict[str, str]
    checkpoints: dict[str, str]
    chosen: Mapping[str, Any]
    recipe: Mapping[str, Any]
    seed: int
    heldout: Mapping[str, Any]
    general: Mapping[str, Any]


def build_lineage(home: Home, evaluation: Evaluation, overrides: list[Override]) -> Lineage:
    """Build the lineage of an evaluated model."""
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
        "chosen": evaluation.get("chosen", {}),  # earlier releases chose no epoch
        "recipe": evaluation["recipe"],
        "seed": evaluation["seed"],
        "heldout": evaluation["heldout"],
        "general": evaluation["general"],
    }


def _leaf(home: Home, leaf: Mapping[str, Any]) -> dict[str, Any]:
    made = home.provenance(leaf["leaf"], leaf["curated"])
    return {
        **{key: value for key, value in leaf.items() if key != "attribution"},
        "works": works(leaf["attribution"]),
        "made_from": read_json(made) if made.exists() else None,
    }
