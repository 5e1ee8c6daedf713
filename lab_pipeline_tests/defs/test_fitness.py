from __future__ import annotations

import dagster as dg
import pytest

from lab_pipeline.defs.checkpoints.assets import base_model
from lab_pipeline.defs.instructions.assets import leaf_instructions
from lab_pipeline.defs.partitions import partition_of
from lab_pipeline.defs.resources import Lab
from lab_pipeline.defs.taxonomy.assets import taxonomy_snapshot
from lab_pipeline.instructions.plan import leaf_state
from lab_pipeline_tests import templates
from lab_pipeline_tests.builders import FREEFORM, write_taxonomy
from lab_pipeline_tests.lab import TestLab, lab


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


def test_no_call_is_made_for_a_base_model_that_cannot_be_trained(opened, instance, tiny_model, tmp_path):
    opened.set(base_model=str(templates.with_template(tiny_model, tmp_path / "bare", None)))
    run = refreshed(opened, instance)
    (failed,) = run.filter_events(lambda event: event.is_step_failure)
    told = failed.step_failure_data.user_failure_data.description
    assert "settings.yaml: base_model: " in told and "no chat template" in told
    assert opened.calls() == 0
    lab = Lab(root=str(opened.home.root))
    # Loading definitions asks the instance that was entered last, which must still be there, whatever earlier tests entered.
    with dg.DagsterInstance.ephemeral() as entered:
        assert not dg.materialize([base_model], resources={"lab": lab}, instance=entered, raise_on_error=False).success


def test_leaves_are_refreshed_where_the_base_model_cannot_be_had_now(opened, instance, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    opened.set(base_model="nobody/nothing-at-all")
    assert refreshed(opened, instance).success
    assert opened.calls() and leaf_state(opened.home, FREEFORM)
