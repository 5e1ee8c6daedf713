"""Mixing the curated leaves into the data of both training phases.

Phase 1, *knowledge*: question-answer rows of the knowledge leaves and the documents' own text. Phase 2, *skills*: rows of
the skill leaves, their seeds in use, and a replay of phase 1 (LAB paper, section 4), or all of it where the recipe stacks
both. Both carry general questions against forgetting. What concerns several leaves at once happens here: rows that repeat
a held-out question, and the same question in two leaves.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa

from lab_pipeline.datasets.catalog import Catalog, curated_rows
from lab_pipeline.datasets.heldout import LeakDetector
from lab_pipeline.datasets.rows import (
    TRAINING_SCHEMA,
    as_prompt,
    document_row,
    general_row,
    instruction_row,
    licensed,
    seed_row,
)
from lab_pipeline.errors import NotMaterialized
from lab_pipeline.settings import Settings
from lab_pipeline.storage import Home, digest, read_json, read_rows, write_json, write_rows
from lab_pipeline.taxonomy.attribution import licences
from lab_pipeline.taxonomy.leaf import normalised
from lab_pipeline.taxonomy.snapshot import load_snapshot
from lab_pipeline.training.recipe import Recipe

Phase = Literal["knowledge", "skills"]

_MARKUP = re.compile(r"<\|[^|>]{1,40}\|>")
"""Special tokens of chat templates: as text in a row they would end or begin turns."""

EXCLUDED_SCHEMA = pa.schema(
    [("id", pa.string()), ("leaf", pa.string()), ("question", pa.string()), ("rule", pa.string()), ("reason", pa.string())]
)
"""Rows that a data set left out, with the rule that excluded them."""


@dataclass(frozen=True)
class Dataset:
    """One phase's training data: a Parquet file named by the hash of its rows, with what it is made of."""

    phase: Phase
    made_from: str
    """See `origin`."""
    digest: str
    path: Path
    rows: int
    by_source: dict[str, int]
    by_leaf: dict[str, int]
    excluded: dict[str, int]

    def read(self) -> list[dict[str, Any]]:
        return read_rows(self.path)


def build_heldout(catalog: Catalog, snapshot_rows: list[dict[str, Any]], general: list[dict[str, str]]) -> dict[str, Any]:
    """The questions of the test: those held out of each leaf in use, and the general set."""
    questions = {row["leaf"]: row["heldout_questions"] for row in snapshot_rows}
    leaves = {
        entry["leaf"]: [
            {"id": digest([question["question"], question["context"]]), **question} for question in questions[entry["leaf"]]
        ]
        for entry in catalog.in_use
    }
    heldout = {"leaves": leaves, "general": general}
    return {**heldout, "digest": digest(heldout)}


def store_heldout(home: Home, heldout: dict[str, Any]) -> None:
    """Make a test the current one."""
    write_json(home.datasets / "heldout.json", heldout)


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
    rows = _curated(home, catalog, lambda kind: kind == "knowledge")
    for leaf, source in _sources(home, catalog, lambda kind: kind == "knowledge"):
        rows += [document_row(leaf, source["domain"], passage) for passage in source["passages"]]
    rows, excluded = _admit(rows, heldout)
    rows += _general(replay, recipe.knowledge.general_replay, "knowledge", heldout, settings.seed) if rows else []
    stated = _licences(home, catalog)
    rows = [licensed(row, stated) for row in rows]
    return _store(home, "knowledge", rows, excluded, origin(catalog, heldout), settings.seed)


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
    rows = []
    for leaf, source in _sources(home, catalog, lambda kind: kind != "knowledge"):
        rows += [seed_row(leaf, seed) for seed in source["seeds"]]
    rows, excluded = _admit(rows + _curated(home, catalog, lambda kind: kind != "knowledge"), heldout)
    earlier = [row for row in knowledge.read() if row["source"] != "general"]
    if recipe.stacked:
        rows += earlier
    else:
        count = round(recipe.skills.phase_1_replay * len(earlier))
        replayed = random.Random(digest([settings.seed, "replay"])).sample(earlier, count)
        rows += [{**row, "id": digest(["replay", row["id"]]), "source": "replay", "source_row": row["id"]} for row in replayed]
    rows += _general(replay, recipe.phase("skills").general_replay, "skills", heldout, settings.seed) if rows else []
    stated = _licences(home, catalog)
    rows = [licensed(row, stated) for row in rows]
    return _store(home, "skills", rows, excluded, origin(catalog, heldout), settings.seed)


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


def exclusions(home: Home) -> list[dict[str, Any]]:
    """Rows that the current data sets left out, under `EXCLUDED_SCHEMA` and with the data set's name as `stage`."""
    found = []
    for phase in get_args(Phase):
        if (home.datasets / f"{phase}.json").exists():
            path = load_dataset(home, phase).path
            found += [{**row, "stage": f"{phase} data set"} for row in read_rows(path.with_stem(f"{path.stem}-excluded"))]
    return found


def origin(catalog: Catalog, heldout: dict[str, Any]) -> str:
    """What a data set was mixed from; an evaluation must find data sets, catalog and test in agreement."""
    return digest([catalog.contents, heldout["digest"]])


def _licences(home: Home, catalog: Catalog) -> dict[str, list[str]]:
    return {row["leaf"]: licences(row["attribution"]) for row in load_snapshot(home, catalog.snapshot).rows}


def _curated(home: Home, catalog: Catalog, wanted: Callable[[str], bool]) -> list[dict[str, Any]]:
    return [instruction_row(row) for entry in catalog.in_use if wanted(entry["kind"]) for row in curated_rows(home, entry)]


def _sources(home: Home, catalog: Catalog, wanted: Callable[[str], bool]) -> Iterator[tuple[str, dict[str, Any]]]:
    for entry in catalog.in_use:
        if wanted(entry["kind"]):
            yield entry["leaf"], read_json(home.leaf_source(entry["source"]))


def _admit(rows: list[dict[str, Any]], heldout: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(admitted, excluded): what the checks on data sets would stop the run for is left out here, row by row."""
    leaks = _leaks(heldout)
    admitted, excluded = [], []
    seen: dict[str, str] = {}
    for row in rows:
        asked = row["messages"][0]["content"]
        is_question = row["source"] != "document"
        markup = next((found for message in row["messages"] if (found := _MARKUP.search(message["content"]))), None)
        if markup:
            rule, reason = "markup", f"holds the chat markup {markup.group()!r}"
        elif is_question and (leak := leaks.leak(asked)):
            rule, reason = "held_out", f"repeats the test question {leak!r}"
        elif is_question and normalised(asked) in seen:
            rule, reason = "duplicate", f"same question as a row of {seen[normalised(asked)]}"
        else:
            seen[normalised(asked)] = row["leaf"]
            admitted.append(row)
            continue
        excluded.append({"id": row["source_row"], "leaf": row["leaf"], "question": asked, "rule": rule, "reason": reason})
    return admitted, excluded


def _general(
    replay: list[dict[str, str]], count: int, phase: Phase, heldout: dict[str, Any], seed: int
) -> list[dict[str, Any]]:
    leaks = _leaks(heldout)
    free = [question for question in replay if not leaks.leak(question["question"])]
    chosen = random.Random(digest([seed, "general", phase])).sample(free, min(count, len(free)))
    return [general_row(question) for question in chosen]


def _leaks(heldout: dict[str, Any]) -> LeakDetector:
    return LeakDetector(asked_questions(heldout))


def _store(
    home: Home, phase: Phase, rows: list[dict[str, Any]], excluded: list[dict[str, Any]], made_from: str, seed: int
) -> Dataset:
    """Shuffle (by hash, so the order is the rows' own) and write a data set and what it left out."""
    rows = sorted(rows, key=lambda row: digest([seed, row["id"]]))
    content = digest([[row["id"], row["messages"], row["unmask"]] for row in rows])
    path = home.datasets / f"{phase}-{content}.parquet"
    write_rows(path, rows, TRAINING_SCHEMA)
    write_rows(home.datasets / f"{phase}-{content}-excluded.parquet", excluded, EXCLUDED_SCHEMA)
    dataset = Dataset(
        phase=phase,
        made_from=made_from,
        digest=content,
        path=path,
        rows=len(rows),
        by_source=dict(Counter(row["source"] for row in rows)),
        by_leaf=dict(Counter(row["leaf"] for row in rows if row["leaf"])),
        excluded=dict(Counter(row["rule"] for row in excluded)),
    )
    write_json(home.datasets / f"{phase}.json", {**vars(dataset), "path": path.name})
    return dataset
