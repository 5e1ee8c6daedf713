"""A whole retune on a cluster with PostgreSQL, through Dagster's run launcher, against the same retune on this machine."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
from lab_pipeline_tests.defs import pod_jobs
from lab_pipeline_tests.lab import lab
from lab_pipeline_tests.postgres import postgres

BIG = ["knowledge_checkpoint", "skills_checkpoint", "evaluation_report"]


def finished(
    instance: dg.DagsterInstance, running: Cluster, job: Callable[[], Any], tags: dict[str, str] | None = None
) -> dg.DagsterRun:
    """The run of a job, started in a pod as the daemon does, after its end."""
    recon = dg.reconstructable(job)
    run = instance.create_run_for_job(recon.get_definition(), tags=tags, job_code_origin=recon.get_python_origin())
    instance.run_launcher.launch_run(LaunchRunContext(run, workspace=None))
    log = running.ever[-1].log

    def ended() -> dg.DagsterRun | None:
        found = instance.get_run_by_id(run.run_id)
        return found if found and found.is_finished else None

    done = wait_for(f"the end of {job.__name__}", ended, 900)
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
            finished(instance, running, run_worker.snapshot_taxonomy)
            for first, last in ranges(instance, list(current_snapshot(opened.home).usable)):
                tags = {ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last}
                finished(instance, running, run_worker.refresh_leaves, tags)
            finished(instance, running, run_worker.retune)
        steps = [pod.job["metadata"]["labels"].get("dagster/op") for pod in running.ever]
        assert [step for step in steps if step] == BIG and len(steps) == len(BIG) + 3  # and a pod for each of the three runs
        monkeypatch.setenv("LAB_DEPLOYMENT", "local")
        retune(prepare(local.root, None), lambda text: None)
        assert data_of(opened.home) == data_of(local)
        assert len(history(opened.home)) == len(history(local))


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_steps_of_a_retune_cost_a_third_of_what_a_pod_for_each_costs(tmp_path: Path, tiny_model: Path, monkeypatch):
    """Processor time of all pods of a retune for which everything is stored, so that only Dagster and imports are left."""
    monkeypatch.delenv("HOSTNAME", raising=False)
    with (
        lab(tmp_path, write_taxonomy(tmp_path / "taxonomy"), tiny_model, monkeypatch) as opened,
        cluster(tmp_path, opened.home.dagster) as running,
        postgres() as storage,
    ):
        retune(opened.home, lambda text: None)
        config = {"run_launcher": running.launcher(), "storage": storage}
        (opened.home.dagster / "dagster.yaml").write_text(yaml.safe_dump(config))
        monkeypatch.setenv("LAB_DEPLOYMENT", "k8s")

        def cost(job: Callable[[], Any]) -> tuple[float, int]:
            before, pods = resource.getrusage(resource.RUSAGE_CHILDREN), len(running.ever)
            finished(instance, running, job)
            wait_for("the end of all pods", lambda: all(pod.code is not None for pod in running.ever), 120)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, len(running.ever) - pods

        with code_location(), dg.DagsterInstance.get() as instance:
            ours, our_pods = cost(run_worker.retune)
            theirs, their_pods = cost(pod_jobs.every_step_in_a_pod)
    print(f"{ours:.1f} s in {our_pods} pods; a pod for each step: {theirs:.1f} s in {their_pods} pods")
    assert ours * 3 <= theirs
