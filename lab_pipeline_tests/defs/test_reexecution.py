"""Whatever failed can be run again from there, and chosen leaves can be filled again."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from lab_pipeline.core.errors import LabError
from lab_pipeline.defs.checkpoints import assets as checkpoints
from lab_pipeline.defs.datasets import assets as datasets
from lab_pipeline.defs.partitions import partition_of
from lab_pipeline.defs.promotion import assets as promotion
from lab_pipeline.runtime import run_worker
from lab_pipeline.runtime.command import retune
from lab_pipeline_tests.builders import FREEFORM, KNOWLEDGE, edit_yaml, write_taxonomy
from lab_pipeline_tests.daemon import PROJECT, daemon, wait_for
from lab_pipeline_tests.lab import TestLab, lab

BREAKABLE = {
    "instruction_catalog": (datasets, "build_catalog"),
    "heldout_questions": (datasets, "build_heldout"),
    "knowledge_dataset": (datasets, "mix_knowledge"),
    "skills_dataset": (datasets, "mix_skills"),
    "base_model": (checkpoints, "fetch_base"),
    "knowledge_checkpoint": (checkpoints, "prepare_checkpoint"),
    "skills_checkpoint": (checkpoints, "phase_1_checkpoint"),
    "evaluation_report": (promotion, "evaluate"),
    "champion_model": (promotion, "promote"),
}
"""A function that each asset calls, and no asset before it."""


@pytest.fixture(scope="module")
def life(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("again")
    with pytest.MonkeyPatch.context() as patch:
        with lab(folder, write_taxonomy(folder / "taxonomy"), tiny_model, patch) as opened:
            retune(opened.home, lambda text: None)
            yield opened


@pytest.mark.long
def test_a_run_goes_on_from_any_asset_that_failed(life):
    job = dg.reconstructable(run_worker.retune)
    with dg.DagsterInstance.get() as instance:
        for asset, (module, function) in BREAKABLE.items():
            with pytest.MonkeyPatch.context() as patch:

                def fail(*arguments, **named):
                    raise LabError("planted")

                patch.setattr(module, function, fail)
                failed = dg.execute_job(job, instance, raise_on_error=False)
                broken = {event.step_key for event in failed.all_events if event.is_step_failure}
                assert broken == {asset} or (asset == "base_model" and broken >= {asset}), (asset, broken)
            again = dg.ReexecutionOptions.from_failure(failed.run_id, instance)
            mended = dg.execute_job(job, instance, reexecution_options=again)
            assert mended.success, asset
            made = {event.step_key for event in mended.all_events if event.is_step_success}
            done = {event.step_key for event in failed.all_events if event.is_step_success}
            assert asset in made and not made & done, asset


@pytest.mark.long
def test_chosen_leaves_are_filled_again(life: TestLab, tmp_path: Path):
    for leaf in (KNOWLEDGE, FREEFORM):
        change = {"domain" if leaf == KNOWLEDGE else "task_description": "Another wording"}
        edit_yaml(life.taxonomy / leaf / "qna.yaml", lambda value, change=change: value.update(change))
    life.set(sensors={"interval_seconds": 3600})
    subprocess.run([sys.executable, "-m", "lab_pipeline.runtime.run_worker", "snapshot_taxonomy", "a-launch"], check=True)
    chosen = ",".join(map(partition_of, (KNOWLEDGE, FREEFORM)))
    with daemon(tmp_path / "daemon.log"), dg.DagsterInstance.get() as instance:
        command = ["job", "backfill", "-w", "workspace.yaml", "-j", "refresh_leaves", "--partitions", chosen, "--noprompt"]
        subprocess.run([sys.executable, "-m", "dagster", *command], cwd=PROJECT, check=True, capture_output=True)

        def filled() -> list[dg.DagsterRun] | None:
            runs = instance.get_runs(dg.RunsFilter(job_name="refresh_leaves"))
            mine = [run for run in runs if "dagster/backfill" in run.tags]
            return mine if mine and all(run.is_finished for run in mine) else None

        runs = wait_for("the backfill", filled, 120)
        assert all(run.is_success for run in runs)
        made = {
            event.asset_materialization.partition
            for run in runs
            for event in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        }
    assert made == {partition_of(KNOWLEDGE), partition_of(FREEFORM)}
