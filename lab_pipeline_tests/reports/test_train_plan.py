from __future__ import annotations

import re

import pyarrow as pa
import pytest
import yaml

from lab_pipeline.config.recipe import load_recipe
from lab_pipeline.config.settings import Settings, TaxonomySettings
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import TRAINING_SCHEMA
from lab_pipeline.core.storage import write_text
from lab_pipeline.datasets.dataset import store_dataset
from lab_pipeline.models.base_model import fetch_model
from lab_pipeline.reports.train_plan import memory_text, train_plan
from lab_pipeline.training.checkpoint import finish_checkpoint, prepare_checkpoint, read_spec
from lab_pipeline.training.train import train
from lab_pipeline_tests.training.runs import recipe, twelve_rows


def test_a_home_without_data_is_told_so(tiny_model, tmp_path):
    plan = train_plan(Home.open(tmp_path), Settings(taxonomy=TaxonomySettings(path="."), base_model=str(tiny_model)))
    assert "recipe: smollm2_135m_cpu, because it fits" in plan and "so on the CPU" in plan
    assert "knowledge: no knowledge data yet; materialize knowledge_dataset first" in plan


def test_memory_counts_weights_adapter_activations_and_logits(tiny_model):
    """Two layers of 36,864 parameters in linear layers, 64 wide; 49,152 tokens in embeddings and head, which are not tied."""
    text = memory_text(tiny_model, load_recipe("lab_phased"))
    weights = 2 * 36_864 * 4.127 / 8 + 2 * 49_152 * 64 * 2
    logits = 4096 * 49_152 * 4
    assert f"weights {weights / 2**30:.1f}," in text and f"logits {logits / 2**30:.1f})" in text


def test_a_plan_tells_what_the_training_then_takes_and_its_time_once_that_is_known(tiny_model, tmp_path):
    home = Home.open(tmp_path / "home")
    write_text(tmp_path / "recipe.yaml", yaml.safe_dump(recipe(epochs=2).model_dump(mode="json")))
    rows = [{**row, "id": f"{number:016x}"} for number, row in enumerate(twelve_rows() * 4)]
    dataset = store_dataset(home, "knowledge", [pa.Table.from_pylist(rows, TRAINING_SCHEMA)], [], "sources", "mixing", 17)
    settings = Settings(taxonomy=TaxonomySettings(path="."), base_model=str(tiny_model), recipe=str(tmp_path / "recipe.yaml"))
    before = train_plan(home, settings)
    assert "time: unknown, as nothing was trained so before" in before and "the settings name it" in before
    found = re.search(r"knowledge: 48 rows of about (\d+) tokens in about (\d+) packs, 2 epochs: about (\d+) steps", before)
    assert found
    base = fetch_model(home, str(tiny_model))
    _, spec = prepare_checkpoint(home, base, dataset, None, load_recipe(str(tmp_path / "recipe.yaml")), 17)
    report = train(read_spec(spec), lambda text: None)
    assert report and abs(report.steps - int(found[3])) <= 2
    assert report.tokens == pytest.approx(48 * 2 * int(found[1]), rel=0.05)
    finish_checkpoint(read_spec(spec))
    assert re.search(r"time: \d+ s", train_plan(home, settings))
