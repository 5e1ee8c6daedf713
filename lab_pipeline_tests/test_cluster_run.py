"""Whole runs on a cluster with PostgreSQL, through Dagster's run launcher: against those of one machine, and many at once."""

from __future__ import annotations

import resource
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
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
from lab_pipeline_tests.builders import write_skill, write_taxonomy
from lab_pipeline_tests.cluster import Cluster, cluster
from lab_pipeline_tests.code_location import code_location
from lab_pipeline_tests.daemon import wait_for
from lab_pipeline_tests.defs import pod_jobs
from lab_pipeline_tests.lab import TestLab, lab, obliging
from lab_pipeline_tests.postgres import postgres

BIG = ["knowledge_checkpoint", "skills_checkpoint", "evaluation_report"]


def started(
    instance: dg.DagsterInstance, running: Cluster, job: Callable[[], Any], tags: dict[str, str] | None = None
) -> Callable[[], None]:
    """Start the run of a job in a pod, as the daemon does; return what waits for its success."""
    recon = dg.reconstructable(job)
    run = instance.create_run_for_job(recon.get_definition(), tags=tags, job_code_origin=recon.get_python_origin())
    instance.run_launcher.launch_run(LaunchRunContext(run, workspace=None))
    log = running.ever[-1].log

    def ended() -> dg.DagsterRun | None:
        found = instance.get_run_by_id(run.run_id)
        return found if found and found.is_finished else None

    def succeeded() -> None:
        done = wait_for(f"the end of {job.__name__}", ended, 900)
        assert done.is_success, log.read_text(errors="replace")[-5000:]

    return succeeded


def finished(
    instance: dg.DagsterInstance, running: Cluster, job: Callable[[], Any], tags: dict[str, str] | None = None
) -> None:
    """Run a job to its end."""
    started(instance, running, job, tags)()


def of_range(first: str, last: str) -> dict[str, str]:
    """The tags of a run that refreshes a range of leaves."""
    return {ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last}


@contextmanager
def on_a_cluster(opened: TestLab, folder: Path, patch: pytest.MonkeyPatch) -> Iterator[tuple[dg.DagsterInstance, Cluster]]:
    """Runs of a home are pods from here on, and its instance is in a database of its own."""
    patch.delenv("HOSTNAME", raising=False)
    with cluster(folder, opened.home.dagster) as running, postgres() as storage:
        config = {"run_launcher": running.launcher(), "storage": storage}
        (opened.home.dagster / "dagster.yaml").write_text(yaml.safe_dump(config))
        patch.setenv("LAB_DEPLOYMENT", "k8s")
        with code_location(), dg.DagsterInstance.get() as instance:
            yield instance, running


def data_of(home: Home) -> dict[str, str]:
    """The hashes of the training data of both phases."""
    return {phase: load_dataset(home, phase).digest for phase in ("knowledge", "skills")}


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_cluster_makes_of_a_taxonomy_what_one_machine_makes_of_it(tmp_path: Path, tiny_model: Path, monkeypatch):
    with lab(tmp_path, write_taxonomy(tmp_path / "taxonomy"), tiny_model, monkeypatch) as opened:
        local = Home.open(tmp_path / "local")
        shutil.copy(opened.home.settings_file, local.settings_file)
        with on_a_cluster(opened, tmp_path, monkeypatch) as (instance, running):
            finished(instance, running, run_worker.snapshot_taxonomy)
            for first, last in ranges(instance, list(current_snapshot(opened.home).usable)):
                finished(instance, running, run_worker.refresh_leaves, of_range(first, last))
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
    with lab(tmp_path, write_taxonomy(tmp_path / "taxonomy"), tiny_model, monkeypatch) as opened:
        retune(opened.home, lambda text: None)
        with on_a_cluster(opened, tmp_path, monkeypatch) as (instance, running):

            def cost(job: Callable[[], Any]) -> tuple[float, int]:
                before, pods = resource.getrusage(resource.RUSAGE_CHILDREN), len(running.ever)
                finished(instance, running, job)
                wait_for("the end of all pods", lambda: all(pod.code is not None for pod in running.ever), 120)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, len(running.ever) - pods

            ours, our_pods = cost(run_worker.retune)
            theirs, their_pods = cost(pod_jobs.every_step_in_a_pod)
    print(f"{ours:.1f} s in {our_pods} pods; a pod for each step: {theirs:.1f} s in {their_pods} pods")
    assert ours * 3 <= theirs


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_sixteen_refreshes_at_once_keep_to_their_teachers_limit_and_use_it(tmp_path: Path, tiny_model: Path, monkeypatch):
    """Each in a pod of its own; the use of the limit is measured while all of them have questions to ask."""
    runs, slots = 16, 64
    taxonomy = tmp_path / "taxonomy"
    for leaf in range(2 * runs):
        write_skill(taxonomy, f"compositional_skills/lines/line_{leaf:02}", seeds=12)
    with lab(tmp_path, taxonomy, tiny_model, monkeypatch) as opened:
        stub = opened.stub
        stub.reply = lambda asked: replace(obliging(asked), seconds=4)  # a long answer's time
        opened.set(teacher={"kind": "endpoint", "url": stub.url, "model": "stub", "retries": 0, "concurrency": slots})
        with on_a_cluster(opened, tmp_path, monkeypatch) as (instance, running):
            finished(instance, running, run_worker.snapshot_taxonomy)
            ((first, last),) = ranges(instance, list(current_snapshot(opened.home).usable))
            leaves = instance.get_dynamic_partitions("leaves")
            assert (leaves[0], leaves[-1], len(leaves)) == (first, last, 2 * runs)
            refreshes = [
                started(instance, running, run_worker.refresh_leaves, of_range(*leaves[2 * run : 2 * run + 2]))
                for run in range(runs)
            ]
            journals = [opened.home.leaf(leaf) / "journal" for leaf in leaves[::2]]
            wait_for("calls of all runs", lambda: all(any(each.glob("*.jsonl")) for each in journals), 600, every=0.1)
            pods, in_use = running.ever[-runs:], []
            while all(pod.code is None for pod in pods):
                in_use.append(stub.open)
                time.sleep(0.05)
            for succeeded in refreshes:
                succeeded()
    used = statistics.fmean(in_use)
    print(f"in use {used:.1f} of {slots} over {len(in_use) / 20:.0f} s, most {stub.most_at_once}; {len(stub.requests)} calls")
    assert stub.most_at_once == slots and used >= 0.9 * slots
