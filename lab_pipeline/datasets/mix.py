"""Mix the data of both training phases from the curated leaves and other sources.

Phase 1, *knowledge*: question-answer rows of the knowledge leaves, and the documents' own text. Phase 2, *skills*: rows of the
skill leaves, their seeds in use, and a replay of phase 1 (LAB paper, section 4), or all of phase 1 if the recipe stacks both;
if the recipe asks for it, also knowledge questions over documents (`raft`). Both phases have custom data sets (source `own`)
and general questions against forgetting. `exclusion` compares rows of several leaves.

The rows stay in Arrow tables, are read leaf by leaf and written batch by batch; only single rows become Python objects.

Some rows of each leaf (see `splits`) and some general questions are for validation: no model learns from them, and training
takes the epoch that does best on them. Phase 2 also has phase 1's validation rows, to notice if phase 1 is forgotten.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lab_pipeline.config.recipe import Recipe
from lab_pipeline.config.settings import Settings
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import TRAINING_SCHEMA, CatalogEntry, FrozenLeaf, GeneralQuestion, HeldoutSet, TrainingRow
from lab_pipeline.core.storage import digest
from lab_pipeline.datasets.catalog import Catalog, curated_rows, curated_table, frozen_leaf
from lab_pipeline.datasets.custom import custom_rows
from lab_pipeline.datasets.dataset import Dataset, Phase, store_dataset
from lab_pipeline.datasets.exclusion import exclude_rows
from lab_pipeline.datasets.heldout_questions import heldout_prompts
from lab_pipeline.datasets.raft import raft_row
from lab_pipeline.datasets.rows import document_row, general_row, instruction_rows, licences_by_leaf, seed_row, with_licences
from lab_pipeline.datasets.splits import validation_ids
from lab_pipeline.datasets.staleness import (
    mixing_fingerprint,
    require_current_mixing,
    require_current_sources,
    source_fingerprint,
)
from lab_pipeline.taxonomy.documents.passages import passages_of
from lab_pipeline.taxonomy.snapshot import load_snapshot
from lab_pipeline.text.leaks import LeakDetector


def mix_knowledge(
    home: Home, catalog: Catalog, heldout: HeldoutSet, replay: Sequence[GeneralQuestion], recipe: Recipe, settings: Settings
) -> Dataset:
    """Build phase 1's data set, make it the current one, and return it. Rows left out are stored in a file beside it.

    Args:
        replay: general questions to draw from; the recipe says how many.

    Raises:
        CustomDataError: a custom data set's file is missing or of an unknown kind, or its recipe is wrong. A single row that
            cannot be read is only left out.
    """
    leaves = [entry for entry in _in_order(catalog) if entry["kind"] == "knowledge"]
    custom, unreadable = custom_rows(settings.mixing.knowledge, settings.seed)
    curated = (_curated(home, entry, recipe.validation.share, settings.seed) for entry in leaves)
    documents = (
        _table(document_row(entry["leaf"], source["domain"], passage) for passage in source["passages"])
        for entry, source in _frozen_leaves(home, leaves)
    )
    leaks = LeakDetector(heldout_prompts(heldout))
    tables, excluded = exclude_rows(chain(curated, documents, custom), leaks)
    if any(map(len, tables)):
        tables.append(_general(replay, "knowledge", leaks, recipe, settings.seed))
    tables = _with_licences(home, catalog, tables)
    made_from = source_fingerprint(catalog, heldout, settings.mixing)
    mixed_by = mixing_fingerprint("knowledge", replay, recipe, settings.seed)
    return store_dataset(home, "knowledge", tables, unreadable + excluded, made_from, mixed_by, settings.seed)


def mix_skills(
    home: Home,
    catalog: Catalog,
    heldout: HeldoutSet,
    replay: Sequence[GeneralQuestion],
    recipe: Recipe,
    settings: Settings,
    knowledge: Dataset,
) -> Dataset:
    """Build phase 2's data set, store it as the current one with the rows that it excludes, and return it.

    Args:
        replay: general questions to draw from; the recipe says how many.
        knowledge: phase 1's data set.

    Raises:
        NotMaterialized: phase 1's data set was mixed from other sources, by other shares, or with another seed.
        CustomDataError: a custom data set cannot be read.
    """
    require_current_sources([knowledge], catalog, heldout, settings.mixing)
    require_current_mixing([knowledge], replay, recipe, settings.seed)
    leaves = [entry for entry in _in_order(catalog) if entry["kind"] != "knowledge"]
    custom, unreadable = custom_rows(settings.mixing.skills, settings.seed)
    seeds = (
        _table(seed_row(entry["leaf"], seed) for seed in source["seeds"]) for entry, source in _frozen_leaves(home, leaves)
    )
    curated = (_curated(home, entry, recipe.validation.share, settings.seed) for entry in leaves)
    leaks = LeakDetector(heldout_prompts(heldout))
    tables, excluded = exclude_rows(chain(seeds, curated, custom), leaks)
    phase_1 = pq.read_table(knowledge.path, filters=pc.field("source") != "general")
    ids = pa.chunked_array([chunk for table in tables for chunk in table["id"].chunks], pa.string()).combine_chunks()
    # a custom data set may be in both phases
    trained = phase_1.filter((pc.field("part") == "train") & ~pc.field("id").isin(ids))
    tables.append(trained if recipe.stacked else _replayed(trained, recipe.skills.phase_1_replay, settings.seed))
    tables.append(_raft_rows(home, catalog, trained, recipe.skills.raft, settings.seed))
    if any(map(len, tables)):
        tables.append(phase_1.filter(pc.field("part") == "validation"))
        tables.append(_general(replay, "skills", leaks, recipe, settings.seed))
    tables = _with_licences(home, catalog, tables)
    mixed_by = mixing_fingerprint("skills", replay, recipe, settings.seed)
    return store_dataset(home, "skills", tables, unreadable + excluded, knowledge.made_from, mixed_by, settings.seed)


def _in_order(catalog: Catalog) -> list[CatalogEntry]:
    """Return the leaves in use, sorted by key: of rows that repeat each other, the one of the first leaf stays."""
    return sorted(catalog.in_use, key=lambda entry: entry["leaf"])


def _frozen_leaves(home: Home, leaves: Iterable[CatalogEntry]) -> Iterator[tuple[CatalogEntry, FrozenLeaf]]:
    return ((entry, frozen_leaf(home, entry)) for entry in leaves)


def _table(rows: Iterable[TrainingRow]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), TRAINING_SCHEMA)


def _with_licences(home: Home, catalog: Catalog, tables: list[pa.Table]) -> list[pa.Table]:
    stated = licences_by_leaf(load_snapshot(home, catalog.snapshot))
    return [with_licences(table, stated) for table in tables]


def _curated(home: Home, entry: CatalogEntry, validation_share: float, seed: int) -> pa.Table:
    """Return a leaf's curated rows as training rows, sorted by id and split into training and validation."""
    rows = curated_table(home, entry).sort_by("id")
    seed_prompts = [seed["asked"] for seed in frozen_leaf(home, entry)["seeds"]]
    columns = rows.select(["id", "kind", "context", "question", "support"]).to_pylist()
    return instruction_rows(rows, validation_ids(columns, seed_prompts, validation_share, seed))


def _replayed(rows: pa.Table, share: float, seed: int) -> pa.Table:
    """Draw a share of phase 1's rows at random, and return them as rows of the source `replay` with new ids."""
    chosen = np.zeros(len(rows), bool)
    chosen[random.Random(digest([seed, "replay"])).sample(range(len(rows)), round(share * len(rows)))] = True
    rows = rows.filter(pa.array(chosen))
    ids = rows["id"].to_pylist()
    columns = {"id": [digest(["replay", row]) for row in ids], "source": ["replay"] * len(ids), "source_row": ids}
    return pa.table({name: columns.get(name, rows[name]) for name in TRAINING_SCHEMA.names}, TRAINING_SCHEMA)


def _raft_rows(home: Home, catalog: Catalog, rows: pa.Table, share: float, seed: int) -> pa.Table:
    """Ask a share of phase 1's curated rows once more over documents (see `raft`); return these new rows.

    A row whose passage is not found in the leaf's source is skipped.
    """
    questions: list[TrainingRow] = rows.filter(pc.field("source") == "curated").to_pylist() if share else []
    questions.sort(key=lambda row: digest([seed, "raft", row["id"]]))
    by_leaf = defaultdict(list)
    for row in questions[: round(share * len(questions))]:
        by_leaf[row["leaf"]].append(row)
    found = []
    for entry, source in _frozen_leaves(home, [entry for entry in catalog.in_use if entry["leaf"] in by_leaf]):
        passages = [passage["text"] for passage in source["passages"]]
        curated = {row["id"]: row for row in curated_rows(home, entry)}
        for row in by_leaf[entry["leaf"]]:
            gold = next(passages_of(curated[row["source_row"]], source), None)
            if gold:
                found.append(raft_row(row, gold["text"], passages, seed))
    return _table(found)


def _general(replay: Sequence[GeneralQuestion], phase: Phase, leaks: LeakDetector, recipe: Recipe, seed: int) -> pa.Table:
    """Draw general questions: as many to train on as the recipe says for the phase, and those to validate on, which are the
    same for both phases and which neither trains on. Questions that repeat a held-out question are left out."""
    free = [question for question in replay if not leaks.leak(question["question"])]
    free.sort(key=lambda question: digest([seed, "general", question["id"]]))
    first, second = recipe.knowledge.general_replay, recipe.phase("skills").general_replay
    # phase 2 takes the questions after phase 1's, and phase 1's once these run out
    trained = free[:first] if phase == "knowledge" else (free[first:] + free[:first])[:second]
    validating = free[first + second :][::-1][: recipe.validation.general]
    validation_rows: list[TrainingRow] = [{**general_row(question), "part": "validation"} for question in validating]
    return _table([*map(general_row, trained), *validation_rows])
