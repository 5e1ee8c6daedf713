"""Mixing the curated leaves into the data of both training phases.

Phase 1, *knowledge*: question-answer rows of the knowledge leaves and the documents' own text. Phase 2, *skills*: rows of
the skill leaves, their seeds in use, and a replay of phase 1 (LAB paper, section 4), or all of it where the recipe stacks
both. Both carry general questions against forgetting. What concerns several leaves at once happens here: rows that repeat
a held-out question, and the same question in two leaves.

Some rows of each leaf (see `parts`) and some general questions are for validation: no model learns from them, and the
training takes the epoch that does best on them. Phase 2 has phase 1's as well, so that it sees phase 1 forgotten.
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
from lab_pipeline.datasets.parts import validation_rows
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
    """Rows to train on; so are those of `by_source` and `by_leaf`."""
    by_source: dict[str, int]
    by_leaf: dict[str, int]
    validation: dict[str, int]
    """Rows to validate on, by leaf; the general ones as `general`."""
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
    rows = _curated(home, catalog, lambda kind: kind == "knowledge", recipe, settings)
    for leaf, source in _sources(home, catalog, lambda kind: kind == "knowledge"):
        rows += [document_row(leaf, source["domain"], passage) for passage in source["passages"]]
    rows, excluded = _admit(rows, heldout)
    rows += _general(replay, "knowledge", heldout, recipe, settings) if rows else []
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
    rows, excluded = _admit(rows + _curated(home, catalog, lambda kind: kind != "knowledge", recipe, settings), heldout)
    earlier = [row for row in knowledge.read() if row["source"] != "general"]
    trained = [row for row in earlier if row["part"] == "train"]
    if recipe.stacked:
        rows += trained
    else:
        count = round(recipe.skills.phase_1_replay * len(trained))
        replayed = random.Random(digest([settings.seed, "replay"])).sample(trained, count)
        rows += [{**row, "id": digest(["replay", row["id"]]), "source": "replay", "source_row": row["id"]} for row in replayed]
    if rows:
        rows += [row for row in earlier if row["part"] == "validation"]
        rows += _general(replay, "skills", heldout, recipe, settings)
    stated = _licences(home, catalog)
    rows = [licensed(row, stated) for row in rows]
    return _store(home, "skills", rows, excluded, origin(catalog, heldout), settings.seed)


def load_dataset(home: Home, phase: Phase) -> Dataset:
    """The phase's current data set.

    Raises:
        NotMaterialized: it was not materialized yet, or by a release that validated nothing.
    """
    pointer = home.datasets / f"{phase}.json"
    described = read_json(pointer) if pointer.exists() else {}
    if "validation" not in described:
        raise NotMaterialized(f"no {phase} data yet; materialize {phase}_dataset first")
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


def _curated(
    home: Home, catalog: Catalog, wanted: Callable[[str], bool], recipe: Recipe, settings: Settings
) -> list[dict[str, Any]]:
    """The curated rows of some leaves, each in its part."""
    found = []
    for entry in catalog.in_use:
        if wanted(entry["kind"]):
            rows = curated_rows(home, entry)
            seeds = [seed["asked"] for seed in read_json(home.leaf_source(entry["source"]))["seeds"]]
            kept = validation_rows(rows, seeds, recipe.validation.share, settings.seed)
            found += [{**instruction_row(row), "part": "validation" if row["id"] in kept else "train"} for row in rows]
    return found


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
    replay: list[dict[str, str]], phase: Phase, heldout: dict[str, Any], recipe: Recipe, settings: Settings
) -> list[dict[str, Any]]:
    """The phase's own share of the general questions, and those to validate on, which no phase replays."""
    leaks = _leaks(heldout)
    free = [question for question in replay if not leaks.leak(question["question"])]
    free.sort(key=lambda question: digest([settings.seed, "general", question["id"]]))
    first, second = recipe.knowledge.general_replay, recipe.phase("skills").general_replay
    # phase 2 begins where phase 1 ended, and takes from the front again only where the questions run out
    drawn = free[:first] if phase == "knowledge" else (free[first:] + free[:first])[:second]
    kept = free[first + second :][::-1][: recipe.validation.general]
    return [*map(general_row, drawn), *({**general_row(question), "part": "validation"} for question in kept)]


def _leaks(heldout: dict[str, Any]) -> LeakDetector:
    return LeakDetector(asked_questions(heldout))


def _store(
    home: Home, phase: Phase, rows: list[dict[str, Any]], excluded: list[dict[str, Any]], made_from: str, seed: int
) -> Dataset:
    """Shuffle (by hash, so the order is the rows' own) and write a data set and what it left out."""
    rows = sorted(rows, key=lambda row: digest([seed, row["id"]]))
    content = digest([[row["id"], row["messages"], row["unmask"], row["part"]] for row in rows])
    path = home.datasets / f"{phase}-{content}.parquet"
    write_rows(path, rows, TRAINING_SCHEMA)
    write_rows(home.datasets / f"{phase}-{content}-excluded.parquet", excluded, EXCLUDED_SCHEMA)
    trained = [row for row in rows if row["part"] == "train"]
    dataset = Dataset(
        phase=phase,
        made_from=made_from,
        digest=content,
        path=path,
        rows=len(trained),
        by_source=dict(Counter(row["source"] for row in trained)),
        by_leaf=dict(Counter(row["leaf"] for row in trained if row["leaf"])),
        validation=dict(Counter(row["leaf"] or "general" for row in rows if row["part"] == "validation")),
        excluded=dict(Counter(row["rule"] for row in excluded)),
    )
    write_json(home.datasets / f"{phase}.json", {**vars(dataset), "path": path.name})
    return dataset
