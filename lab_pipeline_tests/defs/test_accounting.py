from __future__ import annotations

import dagster as dg
import pytest

from lab_pipeline_tests.builders import write_taxonomy
from lab_pipeline_tests.defs.refreshing import refreshed
from lab_pipeline_tests.lab import lab


def test_leaves_stages_and_runs_tell_what_they_took_as_numbers(tmp_path, tiny_model, monkeypatch):
    with lab(tmp_path, write_taxonomy(tmp_path / "taxonomy"), tiny_model, monkeypatch) as opened:
        with dg.DagsterInstance.ephemeral() as instance:
            made = refreshed(opened, instance)
            generated, judged, curated = (
                {name: value.value for name, value in event.metadata.items()}
                for event in made.asset_materializations_for_node("leaf_instructions")
            )
            (record,) = instance.fetch_observations(dg.AssetKey("generated_instructions"), limit=9).records
        calls = opened.calls()
    run = {name: value.value for name, value in record.asset_observation.metadata.items()}
    assert generated["teacher_calls"] + judged["teacher_calls"] == run["run teacher_calls"] == calls > 0
    assert judged["teacher_calls"] == 0 < generated["prompt_tokens"] == run["run prompt_tokens"], "the simple flow has no judge"
    assert (generated["retries"], generated["money"], generated["cached_tokens"]) == (0, 0, 0)
    assert "teacher_calls" not in curated and curated["rounds"] == 1
    assert run["run expected calls"] == pytest.approx(calls, rel=0.15) and run["run seconds"] > 0
