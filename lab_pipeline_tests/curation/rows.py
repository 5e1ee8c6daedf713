"""A good row to make others from, and the leaves and thresholds that they are tested with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab_pipeline.curation.profile import Profile, profile
from lab_pipeline.curation.rules import CHECKS
from lab_pipeline.flows.flow import Rule
from lab_pipeline.taxonomy.leaf import read_leaf

TAXONOMY = Path(__file__).parents[2] / "data" / "taxonomy"
THRESHOLDS: dict[str, dict[str, Any]] = {
    "length": {"question": (3, 15), "answer": (1, 30)},
    "unsupported_answer": {"minimum": 0.8},
    "off_topic": {"minimum": 0.5},
}
STRICT = {name: Rule(rule=name, **THRESHOLDS.get(name, {})) for name in CHECKS}
"""Every rule but `duplicate`, stricter than in the shipped flows."""
GOOD: dict[str, Any] = {
    "kind": "knowledge",
    "context": None,
    "question": "What is the frame of the Osmerel loom made of?",
    "answer": "The frame is made of walnut wood.",
    "support": "The frame of the Osmerel loom is made of walnut wood.",
    "fault": None,
}


def frozen_source(key: str) -> dict[str, Any]:
    """What curation gets to know of a shipped leaf, passages aside."""
    leaf = read_leaf(TAXONOMY, key).leaf
    assert leaf is not None
    seeds = [{"question": seed.question, "answer": seed.answer, "context": seed.context} for seed in leaf.seeds]
    described = {"task": leaf.task_description, "domain": leaf.domain, "outline": leaf.document_outline}
    return {"leaf": key, "kind": leaf.kind, **described, "seeds": seeds, "passages": []}


LOOM = frozen_source("knowledge/crafts/osmerel_loom")
POLITE = frozen_source("compositional_skills/freeform/writing/polite_rewording")
NOTES = frozen_source("compositional_skills/grounded/extraction/meeting_notes")
LEAF, POLITE_LEAF = profile(LOOM), profile(POLITE)


def check(name: str, given: dict[str, Any], leaf: Profile = LEAF, **thresholds: Any) -> str | None:
    """Why a rule rejects a row, by the thresholds of `STRICT` or others."""
    return CHECKS[name](given, leaf, Rule(rule=name, **thresholds) if thresholds else STRICT[name])


def row(**columns: Any) -> dict[str, Any]:
    return {**GOOD, **columns}


def answer(text: str, **columns: Any) -> dict[str, Any]:
    """A row whose answer stands in its source, so that only its wording can be wrong."""
    question = columns.get("question", GOOD["question"])
    return row(answer=text, support=f"{question} {text}", **columns)


def told(sentence: str, **columns: Any) -> dict[str, Any]:
    """A row that is answered with its source."""
    return row(answer=sentence, support=sentence, **columns)


def skill(**columns: Any) -> dict[str, Any]:
    return row(**{"kind": "freeform_skill", "support": None, **columns})


def polite(question: str, answer: str) -> dict[str, Any]:
    return skill(question=question, answer=answer)
