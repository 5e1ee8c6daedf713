"""A whole retune on a cluster with PostgreSQL, through Dagster's run launcher, against the same retune on this machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import dagster as dg
import pytest
import yaml

from lab_pipeline.core.home import Home
from lab_pipeline.datasets.dataset import load_dataset
from lab_pipeline.defs.partitions import ranges
from lab_pipeline.defs.private_dagster import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    LaunchRunContext,
)
from lab_pipeline.registry.champion import history
from lab_pipeline.runtime import run_worker
from lab_pipeline.runtime.command import retune
from lab_pipeline.runtime.launcher import prepare
from lab_pipeline.taxonomy.snapshot import current_snapshot
from lab_pipeline_tests.builders import write_taxonomy
from lab_pipeline_tests.cluster import Cluster, cluster
from lab_pipeline_tests.code_location import code_location
from lab_pipeline_tests.daemon import wait_for
from lab_pipeline_tests.lab import lab
from lab_pipeline_tests.postgres import postgres

BIG = ["knowledge_checkpoint", "skills_checkpoint", "evaluation_report"]


def finished(instance: dg.DagsterInstance, running: Cluster, job: str, tags: dict[str, str] | None = None) -> dg.DagsterRun:
    """The run of a job, started in a pod as the daemon does, after its end."""
    recon = dg.reconstructable(run_worker.JOBS[job])
    run = instance.create_run_for_job(recon.get_definition(), tags=tags, job_code_origin=recon.get_python_origin())
    instance.run_launcher.launch_run(LaunchRunContext(run, workspace=None))
    log = running.ever[-1].log

    def ended() -> dg.DagsterRun | None:
        found = instance.get_run_by_id(run.run_id)
        return found if found and found.is_finished else None

    done = wait_for(f"the end of {job}", ended, 400)
    assert done.is_success, log.read_text(errors="replace")[-5000:]
    return done


def data_of(home: Home) -> dict[str, str]:
    """The hashes of the training data of both phases."""
    return {phase: load_dataset(home, phase).digest for phase in ("knowledge", "skills")}


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_cluster_makes_of_a_taxonomy_what_one_machine_makes_of_it(tmp_path: Path, tiny_model: Path, monkeypatch):
    monkeypatch.delenv("HOSTNAME", raising=False)
    taxonomy = write_taxonomy(tmp_path / "taxonomy")
    with (
        lab(tmp_path, taxonomy, tiny_model, monkeypatch) as opened,
        cluster(tmp_path, opened.home.dagster) as running,
        postgres() as storage,
    ):
        local = Home.open(tmp_path / "local")
        shutil.copy(opened.home.settings_file, local.settings_file)
        (opened.home.dagster / "dagster.yaml").write_text(
            yaml.safe_dump({"run_launcher": running.launcher(), "storage": storage})
        )
        monkeypatch.setenv("LAB_DEPLOYMENT", "k8s")
        with code_location(), dg.DagsterInstance.get() as instance:
            finished(instance, running, "snapshot_taxonomy")
            for first, last in ranges(instance, list(current_snapshot(opened.home).usable)):
                tags = {ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last}
                finished(instance, running, "refresh_leaves", tags)
            finished(instance, running, "retune")
        steps = [pod.job["metadata"]["labels"].get("dagster/op") for pod in running.ever]
        assert [step for step in steps if step] == BIG and len(steps) == len(BIG) + 3  # and a pod for each of the three runs
        monkeypatch.setenv("LAB_DEPLOYMENT", "local")
        retune(prepare(local.root, None), lambda text: None)
        assert data_of(opened.home) == data_of(local)
        assert len(history(opened.home)) == len(history(local))
