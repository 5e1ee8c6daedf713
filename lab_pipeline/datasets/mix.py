"""Mixing the curated leaves into the data of both training phases.

Phase 1, *knowledge*: question-answer rows of the knowledge leaves and the documents' own text. Phase 2, *skills*: rows of
the skill leaves, their seeds in use, and a replay of phase 1 (LAB paper, section 4). Both carry general questions against
forgetting. What concerns several leaves at once happens here: rows that repeat a held-out question, and the same question
in two leaves.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from lab_pipeline.curation.rules import question_identity
from lab_pipeline.datasets.catalog import Catalog, curated_rows
from lab_pipeline.datasets.heldout import LeakDetector
from lab_pipeline.datasets.rows import TRAINING_SCHEMA, as_prompt, document_row, general_row, instruction_row, seed_row
from lab_pipeline.errors import NotMaterialized
from lab_pipeline.settings import Settings
from lab_pipeline.storage import Home, digest, read_json, read_rows, write_json, write_rows
from lab_pipeline.training.recipe import Recipe

Phase = Literal["knowledge", "skills"]

EXCLUDED_SCHEMA = pa.schema(
    [("id", pa.string()), ("leaf", pa.string()), ("question", pa.string()), ("rule", pa.string()), ("reason", pa.string())]
)
"""Curated rows that a data set left out, with the rule that excluded them."""


@dataclass(frozen=True)
class Dataset:
    """One phase's training data: a Parquet file named by the hash of its rows, with what it is made of."""

    phase: Phase
    digest: str
    path: Path
    rows: int
    by_source: dict[str, int]
    by_leaf: dict[str, int]
    excluded: dict[str, int]

    def read(self) -> list[dict[str, Any]]:
        return read_rows(self.path)


def build_heldout(home: Home, catalog: Catalog, snapshot_rows: list[dict[str, Any]], general: list[dict[str, str]]) -> dict:
    """The questions of the test: those held out of each leaf in use, and the general set. Stored as `heldout.json`."""
    questions = {row["leaf"]: row["heldout_questions"] for row in snapshot_rows}
    leaves = {
        entry["leaf"]: [
            {"id": digest([question["question"], question["context"]]), **question} for question in questions[entry["leaf"]]
        ]
        for entry in catalog.in_use
    }
    heldout = {"leaves": leaves, "general": general}
    heldout["digest"] = digest(heldout)
    write_json(home.datasets / "heldout.json", heldout)
    return heldout


def load_heldout(home: Home) -> dict[str, Any]:
    """The current held-out questions: `leaves` (by key), `general` and their `digest`.

    Raises:
        NotMaterialized: heldout_questions was not materialized yet.
    """
    path = home.datasets / "heldout.json"
    if not path.exists():
        raise NotMaterialized("no held-out questions yet; materialize heldout_questions first")
    return read_json(path)


def asked_questions(heldout: dict[str, Any]) -> list[str]:
    """What the test asks, as prompts: the leaves' held-out questions and the general ones."""
    questions = [*(question for leaf in heldout["leaves"].values() for question in leaf), *heldout["general"]]
    return [as_prompt(question["question"], question.get("context"))[0]["content"] for question in questions]


def mix_knowledge(
    home: Home, catalog: Catalog, heldout: dict[str, Any], replay: list[dict[str, str]], recipe: Recipe, settings: Settings
) -> Dataset:
    """Build and store phase 1's data."""
    rows, excluded = _instructions(home, catalog, heldout, lambda kind: kind == "knowledge")
    for entry in catalog.in_use:
        if entry["kind"] == "knowledge":
            source = read_json(home.leaf_source(entry["source"]))
            rows += [document_row(entry["leaf"], source["domain"], passage) for passage in source["passages"]]
    rows += _general(replay, recipe.knowledge.general_replay, "knowledge", heldout, settings.seed) if rows else []
    return _store(home, "knowledge", rows, excluded, settings.seed)


def mix_skills(
    home: Home,
    catalog: Catalog,
    heldout: dict[str, Any],
    replay: list[dict[str, str]],
    recipe: Recipe,
    settings: Settings,
    knowledge: Dataset,
) -> Dataset:
    """Build and store phase 2's data."""
    rows, excluded = _instructions(home, catalog, heldout, lambda kind: kind != "knowledge")
    for entry in catalog.in_use:
        if entry["kind"] != "knowledge":
            rows += [seed_row(entry["leaf"], seed) for seed in read_json(home.leaf_source(entry["source"]))["seeds"]]
    earlier = [row for row in knowledge.read() if row["source"] != "general"]
    count = round(recipe.skills.phase_1_replay * len(earlier))
    replayed = random.Random(digest([settings.seed, "replay"])).sample(earlier, count)
    rows += [{**row, "id": digest(["replay", row["id"]]), "source": "replay", "source_row": row["id"]} for row in replayed]
    rows += _general(replay, recipe.skills.general_replay, "skills", heldout, settings.seed) if rows else []
    return _store(home, "skills", rows, excluded, settings.seed)


def load_dataset(home: Home, phase: Phase) -> Dataset:
    """The phase's current data set.

    Raises:
        NotMaterialized: it was not materialized yet.
    """
    pointer = home.datasets / f"{phase}.json"
    if not pointer.exists():
        raise NotMaterialized(f"no {phase} data yet; materialize {phase}_dataset first")
    described = read_json(pointer)
    return Dataset(**{**described, "path": home.datasets / described["path"]})


def _instructions(
    home: Home, catalog: Catalog, heldout: dict[str, Any], wanted: Callable[[str], bool]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Curated rows of the wanted kinds as training rows, and those left out."""
    leaks = _leaks(heldout)
    rows, excluded = [], []
    seen: dict[str, str] = {}
    for entry in catalog.in_use:
        if not wanted(entry["kind"]):
            continue
        for row in curated_rows(home, entry):
            identity = question_identity(row)
            training_row = instruction_row(row)
            leak = leaks.leak(training_row["messages"][0]["content"])
            if leak:
                rule, reason = "held_out", f"repeats the held-out question {leak!r}"
            elif identity in seen:
                rule, reason = "duplicate_across_leaves", f"same question as a row of {seen[identity]}"
            else:
                seen[identity] = entry["leaf"]
                rows.append(training_row)
                continue
            excluded.append(
                {"id": row["id"], "leaf": entry["leaf"], "question": row["question"], "rule": rule, "reason": reason}
            )
    return rows, excluded


def _general(
    replay: list[dict[str, str]], count: int, phase: Phase, heldout: dict[str, Any], seed: int
) -> list[dict[str, Any]]:
    leaks = _leaks(heldout)
    free = [question for question in replay if not leaks.leak(question["question"])]
    chosen = random.Random(digest([seed, "general", phase])).sample(free, min(count, len(free)))
    return [general_row(question) for question in chosen]


def _leaks(heldout: dict[str, Any]) -> LeakDetector:
    return LeakDetector(asked_questions(heldout))


def _store(home: Home, phase: Phase, rows: list[dict[str, Any]], excluded: list[dict[str, Any]], seed: int) -> Dataset:
    """Shuffle (by hash, so the order is the rows' own) and write a data set and what it left out."""
    rows = sorted(rows, key=lambda row: digest([seed, row["id"]]))
    content = digest([[row["id"], row["messages"], row["unmask"]] for row in rows])
    path = home.datasets / f"{phase}-{content}.parquet"
    write_rows(path, rows, TRAINING_SCHEMA)
    write_rows(home.datasets / f"{phase}-{content}-excluded.parquet", excluded, EXCLUDED_SCHEMA)
    dataset = Dataset(
        phase=phase,
        digest=content,
        path=path,
        rows=len(rows),
        by_source=dict(Counter(row["source"] for row in rows)),
        by_leaf=dict(Counter(row["leaf"] for row in rows if row["leaf"])),
        excluded=dict(Counter(row["rule"] for row in excluded)),
    )
    write_json(home.datasets / f"{phase}.json", {**vars(dataset), "path": path.name})
    return dataset
