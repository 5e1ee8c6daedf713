"""What a model was taught by: the record that ships with it as `lineage.json`."""

from __future__ import annotations

import re
from typing import Any

from lab_pipeline.flows.refresh import made_from
from lab_pipeline.registry.base_model import base_licence, hub_id
from lab_pipeline.storage import Home, read_json

_WORK = {
    "title": re.compile(r"^\W*title of (?:the )?work\s*:\s*(.*\S)", re.IGNORECASE),
    "link": re.compile(r"^\W*link to (?:the )?work\s*:\s*(.*\S)", re.IGNORECASE),
    "licence": re.compile(r"^\W*licen[sc]e of (?:the )?work\s*:\s*(.*\S)", re.IGNORECASE),
    "creators": re.compile(r"^\W*creator names\s*:\s*(.*\S)", re.IGNORECASE),
}
"""The fields of InstructLab's `attribution.txt`."""


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


def works(attribution: str | None) -> list[dict[str, str]]:
    """The works that an `attribution.txt` names, each with those of title, link, licence and creators that it states."""
    found: list[dict[str, str]] = []
    for line in (attribution or "").splitlines():
        for name, pattern in _WORK.items():
            if match := pattern.match(line):
                if not found or name in found[-1]:
                    found.append({})
                found[-1][name] = match.group(1)
    return found


def _leaf(home: Home, leaf: dict[str, Any]) -> dict[str, Any]:
    """A leaf as the evaluation has it, with the works it rests on and what its rows were made from (None where an earlier
    release made them and did not write it down)."""
    made = made_from(home, leaf["leaf"], leaf["curated"])
    return {
        **{key: value for key, value in leaf.items() if key != "attribution"},
        "works": works(leaf["attribution"]),
        "made_from": read_json(made) if made.exists() else None,
    }
