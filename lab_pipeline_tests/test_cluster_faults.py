"""What a fault costs on a cluster: a refresh and two retunes in which everything is lost once, against the same without faults.

This process plays the daemon: it starts runs, looks at them, and starts a lost one again, as run monitoring and run retries do.
"""

from __future__ import annotations

import json
import logging
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._daemon.monitoring import execute_run_monitoring_iteration

from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import read_json
from lab_pipeline.defs.partitions import ranges
from lab_pipeline.defs.private_dagster import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    LaunchRunContext,
)
from lab_pipeline.runtime import run_worker
from lab_pipeline.runtime.command import retune
from lab_pipeline.runtime.launcher import prepare
from lab_pipeline.taxonomy.snapshot import current_snapshot
from lab_pipeline_tests.builders import write_taxonomy
from lab_pipeline_tests.cluster import Cluster, Pod, cluster
from lab_pipeline_tests.code_location import code_location
from lab_pipeline_tests.daemon import wait_for
from lab_pipeline_tests.lab import OPEN_GATE, TestLab, lab
from lab_pipeline_tests.postgres import postgres
from lab_pipeline_tests.runtime.test_survival import LONGER, unhurried

BIG = ["knowledge_checkpoint", "skills_checkpoint", "evaluation_report"]
OTHER = {**LONGER, "knowledge": {**LONGER["knowledge"], "learning_rate": 0.02}}


@dataclass
class Faulty:
    lab: TestLab
    cluster: Cluster
    instance: dg.DagsterInstance
    table: list[str] = field(default_factory=list)
    """What was lost, what came of it, after how many seconds, and what was done twice."""

    def start(self, job: str, tags: dict[str, str] | None = None) -> tuple[dg.DagsterRun, Pod]:
        recon = dg.reconstructable(run_worker.JOBS[job])
        run = self.instance.create_run_for_job(recon.get_definition(), tags=tags, job_code_origin=recon.get_python_origin())
        self.instance.run_launcher.launch_run(LaunchRunContext(run, workspace=None))
        return run, self.cluster.ever[-1]

    def status(self, run: dg.DagsterRun) -> dg.DagsterRunStatus:
        """After the daemon has looked at the runs."""
        context: Any = SimpleNamespace(instance=self.instance, create_request_context=lambda: None)
        list(execute_run_monitoring_iteration(context, logging.getLogger("daemon")))
        return self.instance.get_run_by_id(run.run_id).status  # type: ignore[union-attr]

    def reason(self, run: dg.DagsterRun) -> str:
        """Why a run failed, in Dagster's words."""
        return self.instance.get_run_by_id(run.run_id).tags["dagster/failure_reason"]  # type: ignore[union-attr]

    def finished(self, run: dg.DagsterRun, pod: Pod) -> bool:
        """Whether a run succeeded, after its end and the deletion of its job."""
        states = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE)
        status = wait_for(run.job_name, lambda: (now := self.status(run)) in states and now, 1200, every=1)
        wait_for("the end of the run's pod", lambda: pod.code is not None, 60)
        self.cluster.delete(pod.name)
        return status == dg.DagsterRunStatus.SUCCESS

    def lose(self, step: str, when: Callable[[], Any], number: signal.Signals, reason: str, what: str) -> None:
        """End the first pod of a step when there is something to lose, and wait for the next one."""
        wait_for(what, when, 600, every=0.005)
        pods, lost = self.cluster.of_step(step), time.monotonic()
        self.cluster.end(pods[-1], number, reason)
        wait_for(f"the next pod of {step}", lambda: len(self.cluster.of_step(step)) > len(pods), 300, every=0.1)
        self.table.append(f"{what}: a new pod after {time.monotonic() - lost:.0f} s")

    def saved(self, phase: str) -> Callable[[], bool]:
        """Tell whether a training that is not finished has saved its state."""
        folder = self.lab.home.checkpoints
        return lambda: any(
            not (state.parents[2] / "meta.json").exists() for state in folder.glob(f"{phase}-*/resume-*/*/complete.json")
        )

    def trained(self, phase: str) -> dict[Path, int]:
        """When each finished training of a phase ended, in nanoseconds."""
        return {path: path.stat().st_mtime_ns for path in self.lab.home.checkpoints.glob(f"{phase}-*/meta.json")}


@contextmanager
def faulty(folder: Path, model: Path, patch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    patch.delenv("HOSTNAME", raising=False)
    with (
        lab(folder, write_taxonomy(folder / "taxonomy"), model, patch) as opened,
        cluster(folder, opened.home.dagster) as running,
        postgres() as storage,
    ):
        recipe(opened, LONGER)
        opened.set(gate=OPEN_GATE)
        opened.stub.reply = unhurried
        config = {"run_launcher": running.launcher(), "storage": storage}
        (opened.home.dagster / "dagster.yaml").write_text(yaml.safe_dump(config))
        patch.setenv("LAB_DEPLOYMENT", "k8s")
        with code_location(), dg.DagsterInstance.get() as instance:
            yield Faulty(opened, running, instance)


def recipe(opened: TestLab, wanted: dict[str, Any]) -> None:
    (opened.home.root.parent / "recipe.yaml").write_text(json.dumps(wanted))


def candidates(home: Home) -> dict[str, str]:
    """The hashes of all merged models."""
    found = [read_json(path) for path in (home.root / "candidates").glob("*/candidate.json")]
    return {each["id"]: each["digest"] for each in found}


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_faults_cost_time_and_no_more_work_than_was_not_saved(tmp_path, tiny_model, monkeypatch):
    with faulty(tmp_path, tiny_model, monkeypatch) as all_lost:
        opened, running, stub = all_lost.lab, all_lost.cluster, all_lost.lab.stub
        local = Home.open(tmp_path / "local")
        assert all_lost.finished(*all_lost.start("snapshot_taxonomy"))

        # a pod is evicted while leaves are generated
        spans = ranges(all_lost.instance, list(current_snapshot(opened.home).usable))
        first = {ASSET_PARTITION_RANGE_START_TAG: spans[0][0], ASSET_PARTITION_RANGE_END_TAG: spans[0][1]}
        run, pod = all_lost.start("refresh_leaves", first)
        wait_for("teacher calls", lambda: len(stub.requests) >= 10, 300, every=0.005)
        lost = time.monotonic()
        running.end(pod, signal.SIGTERM, "Evicted")
        assert not all_lost.finished(run, pod)
        assert all_lost.reason(run) == "UNEXPECTED_TERMINATION"  # which the daemon tries again
        seen, in_flight = time.monotonic() - lost, stub.most_at_once
        for start, end in spans:
            tags = {ASSET_PARTITION_RANGE_START_TAG: start, ASSET_PARTITION_RANGE_END_TAG: end}
            assert all_lost.finished(*all_lost.start("refresh_leaves", tags))
        asked = [json.dumps(each.body, sort_keys=True) for each in stub.requests]
        twice = len(asked) - len(set(asked))
        all_lost.table.append(f"evicted while generating: failed after {seen:.0f} s; {twice} of {len(asked)} calls made twice")
        assert twice <= in_flight  # only calls whose replies had not come

        # pods are lost while training and merging
        def lose_steps() -> None:
            knowledge, skills = all_lost.saved("knowledge"), all_lost.saved("skills")
            all_lost.lose("knowledge_checkpoint", knowledge, signal.SIGTERM, "Evicted", "evicted while training")
            all_lost.lose("skills_checkpoint", skills, signal.SIGKILL, "NodeLost", "node lost while training")
            merging = lambda: list((opened.home.root / "candidates").glob("*/.writing-*/model/config.json"))  # noqa: E731
            all_lost.lose("evaluation_report", merging, signal.SIGTERM, "Evicted", "evicted while merging")

        losing = threading.Thread(target=lose_steps, daemon=True)
        losing.start()
        assert all_lost.finished(*all_lost.start("retune"))
        losing.join(1)
        assert len(all_lost.table) == 4 and [len(running.of_step(step)) for step in BIG] == [2, 2, 2]

        # the API server is away for 30 s, and the run's pod is killed, while another model trains
        recipe(opened, OTHER)
        run, pod = all_lost.start("retune")
        wait_for("a saved state", all_lost.saved("knowledge"), 600, every=0.005)
        step = running.of_step("knowledge_checkpoint")[-1]
        running.away = True
        time.sleep(30)
        assert all_lost.status(run) == dg.DagsterRunStatus.STARTED
        running.away = False
        all_lost.table.append("API server away for 30 s: nothing")
        wait_for("the next training", lambda: running.of_step("skills_checkpoint")[2:], 600, every=0.1)
        step, lost = running.of_step("skills_checkpoint")[-1], time.monotonic()
        running.end(pod, signal.SIGKILL)
        assert not all_lost.finished(run, pod)
        wait_for("the end of the step's pod", lambda: step.code is not None, 120)
        seen = time.monotonic() - lost
        all_lost.table.append(f"run worker killed: run failed and its step's pod gone after {seen:.0f} s; a new run goes on")
        trained = all_lost.trained("knowledge")
        assert all_lost.finished(*all_lost.start("retune"))
        assert all_lost.trained("knowledge") == trained  # what was trained was not trained again
        assert running.pods == {}  # no GPU is kept

        print("", *all_lost.table, sep="\n")
        monkeypatch.setenv("LAB_DEPLOYMENT", "local")
        shutil.copy(opened.home.settings_file, local.settings_file)
        for each in (LONGER, OTHER):
            recipe(opened, each)
            retune(prepare(local.root, None), lambda text: None)
        assert candidates(opened.home) == candidates(local)
