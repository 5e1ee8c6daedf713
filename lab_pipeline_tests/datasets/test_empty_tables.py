"""Data sets of taxonomies that lack something: every table that is joined, filtered or written may be empty."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lab_pipeline.config.recipe import Recipe, Strategy
from lab_pipeline.config.settings import MixingSettings
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import CURATED_SCHEMA, TRAINING_SCHEMA, as_prompt
from lab_pipeline.core.storage import write_rows
from lab_pipeline.datasets.catalog import curated_rows, current_catalog, frozen_leaf, store_catalog
from lab_pipeline.datasets.dataset import Dataset, excluded_rows, load_dataset, store_dataset
from lab_pipeline.datasets.exclusion import exclude_rows
from lab_pipeline.datasets.export import export_datasets
from lab_pipeline.datasets.heldout_questions import load_heldout
from lab_pipeline.datasets.mix import mix_knowledge, mix_skills
from lab_pipeline.datasets.quality import training_frame, validate
from lab_pipeline.datasets.raft import raft_row
from lab_pipeline.datasets.rows import instruction_rows, user_texts, with_licences
from lab_pipeline.datasets.splits import validation_ids
from lab_pipeline.text.leaks import LeakDetector
from lab_pipeline_tests.builders import FREEFORM, GROUNDED, KNOWLEDGE, settings_for, write_knowledge, write_skill
from lab_pipeline_tests.datasets.filled import FilledHome, copied
from lab_pipeline_tests.datasets.mixing import RECIPE, REPLAY, conversation, excluded, with_custom

RECIPES = {
    "replay": RECIPE,
    "no replay": RECIPE.model_copy(update={"skills": RECIPE.skills.model_copy(update={"phase_1_replay": 0.0})}),
    "stacked": RECIPE.model_copy(update={"strategy": Strategy.stacked}),
    "raft": RECIPE.model_copy(update={"skills": RECIPE.skills.model_copy(update={"raft": 0.5})}),
}


def filled(root: Path, *leaves: str) -> FilledHome:
    taxonomy = root / "taxonomy"
    for leaf in leaves:
        if leaf == KNOWLEDGE:
            write_knowledge(taxonomy, leaf, "documents")
        else:
            write_skill(taxonomy, leaf, grounded=leaf == GROUNDED)
    home = FilledHome(Home.open(root / "home"), settings_for(taxonomy))
    home.refresh()
    return home


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FilledHome]:
    shapes = {
        "knowledge only": [KNOWLEDGE],
        "skills only": [GROUNDED, FREEFORM],
        "one skill": [FREEFORM],
        "both": [KNOWLEDGE, FREEFORM],
    }
    return {name: filled(tmp_path_factory.mktemp("shape"), *leaves) for name, leaves in shapes.items()}


def mixed_by(lab: FilledHome, recipe: Recipe, heldout: Any = None, replay: Any = REPLAY) -> tuple[Dataset, Dataset]:
    catalog, heldout = lab.catalog(), heldout or lab.heldout()
    knowledge = mix_knowledge(lab.home, catalog, heldout, replay, recipe, lab.settings)
    return knowledge, mix_skills(lab.home, catalog, heldout, replay, recipe, lab.settings, knowledge)


def check(lab: FilledHome, folder: Path, datasets: tuple[Dataset, Dataset]) -> None:
    """Read, describe, check and export data sets, as the steps after mixing do."""
    for dataset in datasets:
        assert load_dataset(lab.home, dataset.phase) == dataset
        assert pq.read_schema(dataset.path) == TRAINING_SCHEMA
        table = pq.read_table(dataset.path)
        assert dataset.rows + sum(dataset.validation.values()) == len(table) == len(dataset.read())
        assert len(dataset.head()) == min(5, len(table))
        assert sum(dataset.excluded.values()) == len(excluded(lab, dataset))
        assert len(training_frame(table)) == len(table)
        if len(table):
            results = validate(training_frame(table), "training_rows")
            assert all(result.passed for result in results), [result for result in results if not result.passed]
    assert len(excluded_rows(lab.home)) == sum(sum(dataset.excluded.values()) for dataset in datasets)
    files = export_datasets(lab.home, ["knowledge", "skills"], folder / "export", lab.settings)
    for dataset in datasets:
        assert (f"{dataset.phase}_train_msgs.jsonl" in files) == (dataset.rows > 0)
        assert (f"{dataset.phase}_recipe.yaml" in files) == (dataset.rows > 0)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("shape", ["knowledge only", "skills only", "one skill", "both"])
def test_a_taxonomy_that_lacks_a_kind_of_leaf_is_mixed_and_exported(tmp_path, homes, shape, recipe):
    lab = copied(homes[shape], tmp_path)
    knowledge, skills = mixed_by(lab, RECIPES[recipe])
    check(lab, tmp_path, (knowledge, skills))
    assert (knowledge.rows > 0) == (shape in ("knowledge only", "both"))
    assert skills.rows > 0 or (shape, recipe) == ("knowledge only", "no replay")


@pytest.mark.parametrize("shape", ["knowledge only", "skills only"])
@pytest.mark.parametrize("rows", [[], [conversation("Who keeps the harbour?")], ["no row"]])
def test_custom_data_beside_one_kind_of_leaf_is_mixed(tmp_path, homes, shape, rows):
    lab = with_custom(copied(homes[shape], tmp_path), tmp_path, rows)
    check(lab, tmp_path, mixed_by(lab, RECIPE))


@pytest.mark.parametrize("rows", [[], [conversation("Who keeps the harbour?")], ["no row"]])
def test_custom_data_alone_is_mixed(tmp_path, homes, rows):
    """Nothing is generated, and the only leaf is withdrawn from the catalog."""
    lab = with_custom(copied(homes["one skill"], tmp_path), tmp_path, rows)
    catalog = replace(lab.catalog(), leaves=[])
    heldout = {**lab.heldout(), "leaves": {}}
    knowledge = mix_knowledge(lab.home, catalog, heldout, REPLAY, RECIPE, lab.settings)
    skills = mix_skills(lab.home, catalog, heldout, REPLAY, RECIPE, lab.settings, knowledge)
    for dataset in (knowledge, skills):
        assert dataset.by_source.get("own", 0) <= (rows == [conversation("Who keeps the harbour?")])
        assert len(training_frame(pq.read_table(dataset.path))) == len(dataset.read())
    assert skills.by_source.get("own", 0) == (rows == [conversation("Who keeps the harbour?")])


@pytest.mark.parametrize("shape", ["knowledge only", "skills only", "both"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_taxonomy_whose_rows_are_all_excluded_is_mixed(tmp_path, homes, shape, recipe):
    lab = copied(homes[shape], tmp_path)
    withheld = []
    for entry in lab.catalog().in_use:
        rows = curated_rows(lab.home, entry)
        withheld += [as_prompt(row["question"], row["context"])[0]["content"] for row in rows]
        withheld += [seed["asked"] for seed in frozen_leaf(lab.home, entry)["seeds"]]
    heldout = {**lab.heldout(), "withheld": withheld}
    datasets = mixed_by(lab, RECIPES[recipe], heldout)
    for dataset in datasets:
        assert not {"curated", "seed"} & dataset.by_source.keys()
        assert len(training_frame(pq.read_table(dataset.path))) == len(dataset.read())
    if shape == "skills only":
        assert [dataset.rows for dataset in datasets] == [0, 0]


@pytest.mark.parametrize("shape", ["knowledge only", "skills only"])
@pytest.mark.parametrize("why", ["banned", "rejected"])
def test_leaves_without_any_curated_row_are_mixed(tmp_path, homes, shape, why):
    lab = copied(homes[shape], tmp_path)
    catalog = lab.catalog()
    for entry in catalog.leaves:
        if why == "banned":
            entry |= {"banned": [row["id"] for row in curated_rows(lab.home, entry)]}
        else:
            write_rows(lab.home.leaf(entry["leaf"]) / f"curated-{entry['curated']}.parquet", [], CURATED_SCHEMA)
    heldout = lab.heldout()
    knowledge = mix_knowledge(lab.home, catalog, heldout, REPLAY, RECIPE, lab.settings)
    skills = mix_skills(lab.home, catalog, heldout, REPLAY, RECIPE, lab.settings, knowledge)
    assert "curated" not in {**knowledge.by_source, **skills.by_source}
    for dataset in (knowledge, skills):
        assert len(training_frame(pq.read_table(dataset.path))) == len(dataset.read())


@pytest.mark.parametrize("shape", ["knowledge only", "skills only"])
def test_leaves_that_generate_nothing_are_mixed(tmp_path, homes, shape):
    lab = copied(homes[shape], tmp_path)
    lab.settings = lab.settings.model_copy(update={"mixing": MixingSettings(generated=False)})
    assert lab.plans(lab.snapshot()) == {}
    check(lab, tmp_path, mixed_by(lab, RECIPE))


@pytest.mark.parametrize("shape", ["knowledge only", "skills only"])
def test_no_general_question_is_needed(tmp_path, homes, shape):
    lab = copied(homes[shape], tmp_path)
    heldout = lab.heldout([])
    check(lab, tmp_path, mixed_by(lab, RECIPE, heldout, replay=[]))


def test_a_catalog_without_leaves_is_stored_and_read(tmp_path, homes):
    lab = copied(homes["one skill"], tmp_path)
    store_catalog(lab.home, replace(lab.catalog(), leaves=[]))
    catalog = current_catalog(lab.home)
    assert (catalog.leaves, catalog.in_use, catalog.contents, catalog.stale) == ([], [], {}, [])
    lab.heldout([])
    assert load_heldout(lab.home)["general"] == []


# functions of their own


@pytest.mark.parametrize("tables", [[], [TRAINING_SCHEMA.empty_table()], [TRAINING_SCHEMA.empty_table()] * 3])
def test_empty_tables_go_through_every_function(tmp_path, tables):
    kept, excluded = exclude_rows(iter(tables), LeakDetector(["Who keeps the harbour?"]))
    assert sum(map(len, kept)) == 0 and excluded == []
    assert all(table.schema == TRAINING_SCHEMA for table in kept)
    for table in kept:
        assert len(with_licences(table, {})) == 0
        assert len(user_texts(table)[0]) == 0
        assert len(training_frame(table)) == 0
    home = Home.open(tmp_path)
    dataset = store_dataset(home, "skills", kept, [], "made", "mixed", 0)
    assert (dataset.rows, dataset.read(), dataset.head(), dataset.by_leaf) == (0, [], [], {})
    assert store_dataset(home, "skills", [*kept, *kept], [], "made", "mixed", 0) == dataset


def test_rows_splits_and_raft_of_nothing(homes, tmp_path):
    write_rows(tmp_path / "empty.parquet", [], CURATED_SCHEMA)
    for table in (CURATED_SCHEMA.empty_table(), pq.ParquetFile(tmp_path / "empty.parquet").read()):
        assert instruction_rows(table, set()) == TRAINING_SCHEMA.empty_table()
    assert validation_ids([], [], 0.1, 0) == set()
    assert LeakDetector().leaks_among(pa.array([], pa.string())) == {}
    (row,) = [row for row in mixed_by(homes["both"], RECIPE)[0].read() if row["source"] == "curated"][:1]
    assert "The only passage." in raft_row(row, "The only passage.", ["The only passage."], 0)["messages"][0]["content"]
