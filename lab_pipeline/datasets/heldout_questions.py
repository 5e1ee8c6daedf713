"""Build, store and load the questions that models are tested by, and draw the wrong choices of multiple choice."""

from __future__ import annotations

from typing import Any

from lab_pipeline.core.errors import NotMaterialized
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import as_prompt
from lab_pipeline.core.storage import digest, read_json, write_json
from lab_pipeline.datasets.catalog import Catalog
from lab_pipeline.text.words import normalised

MOST_DISTRACTORS = 8


def draw_distractors(question: dict[str, Any], answers: list[str], seed: int) -> list[str]:
    """At most `MOST_DISTRACTORS` of a leaf's answers that differ from the question's own, by hash of seed, question, answer."""
    others = {normalised(answer): answer for answer in sorted(answers)}
    others.pop(normalised(question["answer"]), None)
    asked = as_prompt(question["question"], question.get("context"))
    return sorted(others.values(), key=lambda answer: digest([seed, asked, answer]))[:MOST_DISTRACTORS]


def build_heldout(
    catalog: Catalog, snapshot_rows: list[dict[str, Any]], general: list[dict[str, str]], withheld: list[str]
) -> dict[str, Any]:
    """The questions of the test: those held out of each leaf in use, and the general set.

    `withheld` is what was ever held out (`heldout.withheld_questions`). Nothing of it may be taught, though its seed be deleted
    or its leaf withdrawn: whatever comes back is asked again.
    """
    questions = {row["leaf"]: row["heldout_questions"] for row in snapshot_rows}
    leaves = {
        entry["leaf"]: [
            {"id": digest([question["question"], question["context"]]), **question} for question in questions[entry["leaf"]]
        ]
        for entry in catalog.in_use
    }
    heldout = {"leaves": leaves, "general": general, "withheld": withheld}
    return {**heldout, "digest": digest(heldout)}


def store_heldout(home: Home, heldout: dict[str, Any]) -> None:
    """Make a test the current one."""
    write_json(home.datasets / "heldout.json", heldout)


def load_heldout(home: Home) -> dict[str, Any]:
    """The current held-out questions: `leaves` (by key), `general`, what else is `withheld`, and their `digest`.

    Raises:
        NotMaterialized: heldout_questions was not materialized yet, or by a release that withheld less.
    """
    path = home.datasets / "heldout.json"
    heldout = read_json(path) if path.exists() else {}
    if "withheld" not in heldout:
        raise NotMaterialized("no held-out questions yet; materialize heldout_questions first")
    return heldout


def asked_questions(heldout: dict[str, Any]) -> list[str]:
    """What the test asks or asked, as prompts: the leaves' held-out questions, the general ones and those only withheld now."""
    questions = [*(question for leaf in heldout["leaves"].values() for question in leaf), *heldout["general"]]
    asked = [as_prompt(question["question"], question.get("context"))[0]["content"] for question in questions]
    return list(dict.fromkeys([*asked, *heldout["withheld"]]))
