"""Mixing the curated leaves into the data of both training phases.

Phase 1, *knowledge*: question-answer rows of the knowledge leaves and the documents' own text. Phase 2, *skills*: rows of
the skill leaves, their seeds in use, and a replay of phase 1 (LAB paper, section 4), or all of it where the recipe stacks
both; where the recipe says so, knowledge questions over documents as well (`raft`). Both carry the data sets of one's own
(`own`) and general questions against forgetting. What concerns several leaves at once is in `screening`.

The rows stay in Arrow tables, are read leaf by leaf and written part by part; what needs Python sees one row at a time.

Some rows of each leaf (see `parts`) and some general questions are for validation: no model learns from them, and the
training takes the epoch that does best on them. Phase 2 has phase 1's as well, so that it sees phase 1 forgotten.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lab_pipeline.config.recipe import Recipe
from lab_pipeline.config.settings import Settings
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import EXCLUDED_SCHEMA, TRAINING_SCHEMA
from lab_pipeline.core.storage import digest, read_json, write_json, write_rows, written_whole
from lab_pipeline.datasets.catalog import Catalog, curated_rows, curated_table
from lab_pipeline.datasets.custom import custom_rows
from lab_pipeline.datasets.dataset import Dataset, Phase, mixing, origin, require_agreement, require_mixing
from lab_pipeline.datasets.heldout_questions import asked_questions
from lab_pipeline.datasets.raft import raft_row
from lab_pipeline.datasets.rows import document_row, general_row, instruction_rows, licensed, seed_row
from lab_pipeline.datasets.screening import screen, turns_of
from lab_pipeline.datasets.splits import validation_rows
from lab_pipeline.taxonomy.attribution import licences
from lab_pipeline.taxonomy.documents.passages import passages_of
from lab_pipeline.taxonomy.snapshot import Snapshot, load_snapshot
from lab_pipeline.text.leaks import LeakDetector

_PART = 50_000
"""Rows that are put in order and written together."""


def mix_knowledge(
    home: Home, catalog: Catalog, heldout: dict[str, Any], replay: list[dict[str, str]], recipe: Recipe, settings: Settings
) -> Dataset:
    """Build and store phase 1's data."""
    leaves = [entry for entry in _in_order(catalog) if entry["kind"] == "knowledge"]
    own, wrong = custom_rows(settings.mixing.knowledge, settings.seed)
    curated = (_curated(home, entry, recipe, settings) for entry in leaves)
    documents = (
        [document_row(entry["leaf"], source["domain"], passage) for passage in source["passages"]]
        for entry, source in _sources(home, leaves)
    )
    test = LeakDetector(asked_questions(heldout))
    rows, excluded = screen(chain(curated, map(_table, documents), own), test)
    if any(map(len, rows)):
        rows.append(_general(replay, "knowledge", test, recipe, settings))
    rows = _licensed(home, catalog, rows)
    made_from, mixed_by = origin(catalog, heldout, settings), mixing("knowledge", replay, recipe, settings)
    return _store(home, "knowledge", rows, wrong + excluded, made_from, mixed_by, settings.seed)


def mix_skills(
    home: Home,
    catalog: Catalog,
    heldout: dict[str, Any],
    replay: list[dict[str, str]],
    recipe: Recipe,
    settings: Settings,
    knowledge: Dataset,
) -> Dataset:
    """Build and store phase 2's data.

    Raises:
        NotMaterialized: phase 1's was mixed from another catalog, test or own data, or in another way.
    """
    require_agreement([knowledge], catalog, heldout, settings)
    require_mixing([knowledge], replay, recipe, settings)
    leaves = [entry for entry in _in_order(catalog) if entry["kind"] != "knowledge"]
    own, wrong = custom_rows(settings.mixing.skills, settings.seed)
    seeds = ([seed_row(entry["leaf"], seed) for seed in source["seeds"]] for entry, source in _sources(home, leaves))
    curated = (_curated(home, entry, recipe, settings) for entry in leaves)
    test = LeakDetector(asked_questions(heldout))
    rows, excluded = screen(chain(map(_table, seeds), curated, own), test)
    earlier = pq.read_table(knowledge.path, filters=pc.field("source") != "general")
    here = pa.chunked_array([chunk for table in rows for chunk in table["id"].chunks], pa.string()).combine_chunks()
    trained = earlier.filter((pc.field("part") == "train") & ~pc.field("id").isin(here))  # a set of one's own may be in both
    rows.append(trained if recipe.stacked else _replayed(trained, recipe.skills.phase_1_replay, settings.seed))
    rows.append(_with_documents(home, catalog, trained, recipe.skills.raft, settings.seed))
    if any(map(len, rows)):
        rows.append(earlier.filter(pc.field("part") == "validation"))
        rows.append(_general(replay, "skills", test, recipe, settings))
    rows = _licensed(home, catalog, rows)
    mixed_by = mixing("skills", replay, recipe, settings)
    return _store(home, "skills", rows, wrong + excluded, knowledge.made_from, mixed_by, settings.seed)


def stated_licences(snapshot: Snapshot) -> dict[str, list[str]]:
    """The licences that each leaf's attribution states, by key."""
    return {row["leaf"]: licences(row["attribution"]) for row in snapshot.rows}


def _in_order(catalog: Catalog) -> list[dict[str, Any]]:
    """The leaves in use by key: of rows that repeat each other, the first leaf's stays."""
    return sorted(catalog.in_use, key=lambda entry: entry["leaf"])


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, TRAINING_SCHEMA)


def _licensed(home: Home, catalog: Catalog, rows: list[pa.Table]) -> list[pa.Table]:
    stated = stated_licences(load_snapshot(home, catalog.snapshot))
    return [licensed(table, stated) for table in rows]


def _curated(home: Home, entry: dict[str, Any], recipe: Recipe, settings: Settings) -> pa.Table:
    """A leaf's curated rows by id, each in its part."""
    rows = curated_table(home, entry).sort_by("id")
    seeds = [seed["asked"] for seed in read_json(home.leaf_source(entry["source"]))["seeds"]]
    described = rows.select(["id", "kind", "context", "question", "support"]).to_pylist()
    return instruction_rows(rows, validation_rows(described, seeds, recipe.validation.share, settings.seed))


def _sources(home: Home, leaves: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(catalog entry, frozen seeds and passages) of each leaf."""
    return ((entry, read_json(home.leaf_source(entry["source"]))) for entry in leaves)


def _replayed(rows: pa.Table, share: float, seed: int) -> pa.Table:
    """Some rows of phase 1 under ids of their own."""
    chosen = np.zeros(len(rows), bool)
    chosen[random.Random(digest([seed, "replay"])).sample(range(len(rows)), round(share * len(rows)))] = True
    rows = rows.filter(pa.array(chosen))
    before = rows["id"].to_pylist()
    columns = {
        "id": [digest(["replay", row]) for row in before],
        "source": ["replay"] * len(before),
        "source_row": before,
    }
    return pa.table({name: columns.get(name, rows[name]) for name in TRAINING_SCHEMA.names}, TRAINING_SCHEMA)


def _with_documents(home: Home, catalog: Catalog, rows: pa.Table, share: float, seed: int) -> pa.Table:
    """A share of phase 1's questions, asked over documents."""
    wanted = rows.filter(pc.field("source") == "curated").to_pylist() if share else []
    wanted = sorted(wanted, key=lambda row: digest([seed, "raft", row["id"]]))[: round(share * len(wanted))]
    by_leaf = defaultdict(list)
    for row in wanted:
        by_leaf[row["leaf"]].append(row)
    found = []
    for entry, source in _sources(home, [entry for entry in catalog.in_use if entry["leaf"] in by_leaf]):
        passages = [passage["text"] for passage in source["passages"]]
        made = {row["id"]: row for row in curated_rows(home, entry)}
        for row in by_leaf[entry["leaf"]]:
            gold = next(passages_of(made[row["source_row"]], source), None)
            if gold:
                found.append(raft_row(row, gold["text"], passages, seed))
    return _table(found)


def _general(replay: list[dict[str, str]], phase: Phase, test: LeakDetector, recipe: Recipe, settings: Settings) -> pa.Table:
    """The phase's own share of the general questions, and those to validate on, which no phase replays."""
    free = [question for question in replay if not test.leak(question["question"])]
    free.sort(key=lambda question: digest([settings.seed, "general", question["id"]]))
    first, second = recipe.knowledge.general_replay, recipe.phase("skills").general_replay
    # phase 2 begins where phase 1 ended, and takes from the front again only where the questions run out
    drawn = free[:first] if phase == "knowledge" else (free[first:] + free[:first])[:second]
    kept = free[first + second :][::-1][: recipe.validation.general]
    return _table([*map(general_row, drawn), *({**general_row(question), "part": "validation"} for question in kept)])


def _store(
    home: Home,
    phase: Phase,
    tables: list[pa.Table],
    excluded: list[dict[str, Any]],
    made_from: str,
    mixed_by: str,
    seed: int,
) -> Dataset:
    """Shuffle (by hash, so the order is the rows' own) and write a data set and what it left out."""
    ranks, contents = [], []
    by_source: Counter[str] = Counter()
    by_leaf: Counter[str] = Counter()
    validation: Counter[str] = Counter()
    for table in tables:
        ids, *columns = (table[name].to_pylist() for name in ("id", "unmask", "source", "leaf", "part"))
        ranks.append(_ranks(ids, seed))
        for row, turns, unmask, source, leaf, part in zip(ids, turns_of(table), *columns, strict=True):
            contents.append(digest([row, turns, unmask, part]))
            if part == "validation":
                validation[leaf or "general"] += 1
            else:
                by_source[source] += 1
                by_leaf[leaf] += bool(leaf)
    order = np.argsort(np.concatenate(ranks), kind="stable")
    content = digest([contents[row] for row in order.tolist()])
    path = home.datasets / f"{phase}-{content}.parquet"
    with written_whole(path) as scratch, pq.ParquetWriter(scratch, TRAINING_SCHEMA) as writer:
        for rows in _shuffled(tables, ranks):
            writer.write_table(rows)
    write_rows(home.datasets / f"{phase}-{content}-excluded.parquet", excluded, EXCLUDED_SCHEMA)
    dataset = Dataset(
        phase=phase,
        made_from=made_from,
        mixed_by=mixed_by,
        digest=content,
        path=path,
        rows=by_source.total(),
        by_source=dict(sorted(by_source.items())),
        by_leaf=dict(sorted((+by_leaf).items())),
        validation=dict(sorted(validation.items())),
        excluded=dict(Counter(row["rule"] for row in excluded)),
    )
    write_json(home.datasets / f"{phase}.json", {**vars(dataset), "path": path.name})
    return dataset


def _ranks(ids: list[str], seed: int) -> np.ndarray:
    """A number for each row's place in the seed's order, spread over all 64-bit numbers as the ids are, which are hashes."""
    mask, odd = int(digest([seed, "order"])[:16], 16), 0x9E3779B97F4A7C15  # Fibonacci hashing: Knuth, TAOCP 3, section 6.4
    return (np.array([int(row[:16], 16) for row in ids], np.uint64) ^ np.uint64(mask)) * np.uint64(odd)


def _shuffled(tables: list[pa.Table], ranks: list[np.ndarray]) -> Iterator[pa.Table]:
    """The rows in the order of their ranks, which are spread over all 64-bit numbers; never many more than `_PART` at once."""
    parts = np.uint64(sum(map(len, tables)) // _PART + 1)
    belongs = [(rank >> np.uint64(32)) * parts >> np.uint64(32) for rank in ranks]
    for part in range(int(parts)):
        chosen = [table.filter(pa.array(owner == part)) for table, owner in zip(tables, belongs, strict=True)]
        rank = np.concatenate([rank[owner == part] for rank, owner in zip(ranks, belongs, strict=True)])
        yield pa.concat_tables(chosen).combine_chunks().take(np.argsort(rank, kind="stable"))
