from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.storage import read_json, write_json
from lab_pipeline.defs.checkpoints.assets import base_model
from lab_pipeline.defs.instructions.assets import leaf_instructions
from lab_pipeline.defs.partitions import partition_of
from lab_pipeline.defs.resources import Lab
from lab_pipeline.defs.taxonomy.assets import taxonomy_snapshot
from lab_pipeline.instructions.plan import leaf_state
from lab_pipeline.registry.fitness import require_fitness
from lab_pipeline_tests import templates
from lab_pipeline_tests.builders import FREEFORM, write_taxonomy
from lab_pipeline_tests.lab import TestLab, lab
from lab_pipeline_tests.training.runs import forgetful_model


@pytest.fixture
def opened(tmp_path, tiny_model, monkeypatch):
    with lab(tmp_path, write_taxonomy(tmp_path / "taxonomy"), tiny_model, monkeypatch) as opened:
        yield opened


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:  # must outlive the results, whose events are read from it
        yield instance


def refreshed(opened: TestLab, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    given = {"resources": {"lab": Lab(root=str(opened.home.root))}, "instance": instance, "raise_on_error": False}
    assert dg.materialize([taxonomy_snapshot], **given).success
    return dg.materialize([leaf_instructions], partition_key=partition_of(FREEFORM), **given)


def bare(model: Path, folder: Path) -> Path:
    return templates.with_template(model, folder, None)


def thoughtful(model: Path, folder: Path) -> Path:
    return templates.with_template(model, folder, templates.OPEN_THOUGHT)


def endless(model: Path, folder: Path) -> Path:
    return templates.with_template(model, folder, "{% for m in messages %}{{ m.content }}\n{% endfor %}", eos_token=None)


def broken(model: Path, folder: Path) -> Path:
    return templates.with_template(model, folder, "{% for m in messages %}{{ m.content + 1 }}{% endfor %}")


def strange(model: Path, folder: Path) -> Path:
    return configured(model, folder, model_type="unheard-of")


def short(model: Path, folder: Path) -> Path:
    return configured(model, folder, max_position_embeddings=64)


def cut_off(model: Path, folder: Path) -> Path:
    shutil.copytree(model, folder)
    os.truncate(folder / "model.safetensors", 10_000)
    return folder


def mute(model: Path, folder: Path) -> Path:
    return Path(shutil.copytree(model, folder, ignore=shutil.ignore_patterns("tokenizer*", "*.jinja")))


def configured(model: Path, folder: Path, **changed: Any) -> Path:
    shutil.copytree(model, folder)
    write_json(folder / "config.json", {**read_json(model / "config.json"), **changed})
    return folder


UNFIT = {
    bare: "no chat template; set chat_template",
    thoughtful: "rewrites earlier turns.*set chat_template",
    forgetful_model: "rewrites earlier turns",
    endless: "token that ends an answer",
    broken: "refuses a conversation",
    strange: "unheard-of",
    short: "64 positions",
    cut_off: "fetch or copy it again",
    mute: "no tokenizer",
}


@pytest.mark.parametrize("spoilt", UNFIT)
def test_no_call_and_no_step_is_made_for_a_base_model_that_cannot_be_trained(opened, instance, tiny_model, tmp_path, spoilt):
    opened.set(base_model=str(spoilt(tiny_model, tmp_path / "spoilt")))
    run = refreshed(opened, instance)
    (failed,) = run.filter_events(lambda event: event.is_step_failure)
    told = failed.step_failure_data.user_failure_data.description
    assert re.search(UNFIT[spoilt], told) and str(tmp_path / "spoilt") in told and "Traceback" not in told
    with pytest.raises(LabError, match=UNFIT[spoilt]):  # a retune's base model is asked for before any training
        require_fitness(opened.home, Lab(root=str(opened.home.root)).settings)
    assert opened.calls() == 0
    assert not opened.home.checkpoints.exists()


def test_no_call_is_made_with_a_template_that_is_not_there(opened, instance):
    opened.set(chat_template="nowhere.jinja")
    assert not refreshed(opened, instance).success
    assert opened.calls() == 0


def test_the_base_model_is_not_fetched_if_it_cannot_be_trained(opened, tiny_model, tmp_path):
    opened.set(base_model=str(bare(tiny_model, tmp_path / "bare")))
    lab = Lab(root=str(opened.home.root))
    assert not dg.materialize([base_model], resources={"lab": lab}, raise_on_error=False).success
    assert not opened.home.models.exists()


def test_leaves_are_refreshed_where_the_base_model_cannot_be_had_now(opened, instance, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    opened.set(base_model="nobody/nothing-at-all")
    assert refreshed(opened, instance).success
    assert opened.calls() and leaf_state(opened.home, FREEFORM)
