"""Record what a model was trained on and how it was measured; the record ships with the model as `lineage.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict, cast

from lab_pipeline.core.evaluation import EvaluatedModel, Evaluation
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import read_json
from lab_pipeline.models.base_model import base_licence, hub_id
from lab_pipeline.taxonomy.attribution import works


class Override(TypedDict):
    """A promotion by a person against the gate: the person, the reason, and the time (ISO 8601, UTC)."""

    author: str
    reason: str
    at: str


class Lineage(EvaluatedModel):
    """The record in `lineage.json`: the model's id, its evaluation, its base model, its overrides and its leaves."""

    model: str
    base_model_id: str | None
    """Its id on the Hugging Face hub; None for a local folder."""
    base_licence: str
    overrides: list[Override]
    leaves: list[dict[str, Any]]
    """Each leaf as in the evaluation, but instead of `attribution` with `works` (title, link, licence and creators of each
    source), and with `made_from`: flow, hashes of the prompts, source, teacher and judge of its rows. `made_from` is None for
    rows of an earlier release, which did not record it."""


def build_lineage(home: Home, evaluation: Evaluation, overrides: list[Override]) -> Lineage:
    """Return the lineage of an evaluated model.

    The base model's licence, and what the rows of each leaf were made from, are read from the home.
    """
    stored = {"chosen": {}, **evaluation}  # earlier releases chose no epoch
    return {
        "model": evaluation["candidate"],
        **cast("EvaluatedModel", {name: stored[name] for name in EvaluatedModel.__annotations__ if name in stored}),
        "base_model_id": hub_id(evaluation["base_model"]),
        "base_licence": base_licence(home, evaluation["base_model"]),
        "overrides": overrides,
        "leaves": [_leaf(home, leaf) for leaf in evaluation["leaves"]],
    }


def _leaf(home: Home, leaf: Mapping[str, Any]) -> dict[str, Any]:
    made = home.provenance(leaf["leaf"], leaf["curated"])
    return {
        **{key: value for key, value in leaf.items() if key != "attribution"},
        "works": works(leaf["attribution"]),
        "made_from": read_json(made) if made.exists() else None,
    }
