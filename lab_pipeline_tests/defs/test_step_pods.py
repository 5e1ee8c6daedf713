"""Runs on a cluster in which a pod is a process: what runs where, what is held, and what a lost pod costs."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._daemon.monitoring import execute_run_monitoring_iteration
from dagster_k8s.container_context import K8sContainerContext
from filelock import FileLock, Timeout

from lab_pipeline.core.home import Home
from lab_pipeline.defs import step_pods
from lab_pipeline.defs.private_dagster import LaunchRunContext
from lab_pipeline.defs.step_pods import pod_problem
from lab_pipeline.runtime import run_worker
from lab_pipeline.training.train import train
from lab_pipeline_tests.builders import write_taxonomy
from lab_pipeline_tests.cluster import Cluster, Pod, cluster
from lab_pipeline_tests.code_location import code_location
from lab_pipeline_tests.daemon import wait_for
from lab_pipeline_tests.defs import pod_jobs
from lab_pipeline_tests.lab import lab
from lab_pipeline_tests.training.test_team import assert_same_adapter, two_packs_a_step


@dataclass
class Clustered:
    """A home whose runs are executed on the cluster; this process is the run's pod where `run` is used."""

    home: Home
    cluster: Cluster
    instance: dg.DagsterInstance

    def run(self, job: Callable[[], Any]) -> dg.DagsterRun:
        result = dg.execute_job(dg.reconstructable(job), self.instance, raise_on_error=False)
        run = self.instance.get_run_by_id(result.run_id)
        assert run
        return run

    def fault(self, how: str) -> None:
        (self.home.root / "faults").write_text(how)

    def why(self, run: dg.DagsterRun) -> list[str]:
        """The messages of a run's failed steps, and of those that were tried again."""
        types = dg.DagsterEventType
        kinds = {types.STEP_FAILURE: "step_failure_data", types.STEP_UP_FOR_RETRY: "step_retry_data"}
        events = [entry.dagster_event for kind in kinds for entry in self.instance.all_logs(run.run_id, of_type=kind)]
        data = [getattr(event, kinds[event.event_type]) for event in events]
        return [(each.error.cause or each.error).message for each in data]


@pytest.fixture
def clustered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clustered]:
    monkeypatch.setenv("LAB_DEPLOYMENT", "k8s")
    monkeypatch.delenv("HOSTNAME", raising=False)  # this process is no pod of the cluster
    quick = partial(step_pods.RunPodExecutor, check_step_health_interval_seconds=1, sleep_seconds=0.1)
    monkeypatch.setattr(step_pods, "RunPodExecutor", quick)
    with (
        lab(tmp_path, write_taxonomy(tmp_path / "taxonomy"), tmp_path, monkeypatch) as opened,
        cluster(tmp_path, opened.home.dagster) as running,
    ):
        (opened.home.dagster / "dagster.yaml").write_text(yaml.safe_dump({"run_launcher": running.launcher()}))
        with dg.DagsterInstance.get() as instance:
            yield Clustered(opened.home, running, instance)


def started(clustered: Clustered, attempt: int = 0) -> Pod:
    """The pod of the big step, once it works."""
    wait_for("the step's pod", lambda: (clustered.home.root / f"big-{attempt}").exists(), 60, every=0.1)
    return clustered.cluster.of_step("big")[attempt]


def meanwhile(what: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=what, daemon=True)
    thread.start()
    return thread


# --- small steps, in the run's pod


def test_a_snapshot_is_taken_in_the_runs_pod_alone(clustered):
    with code_location():
        run = clustered.run(run_worker.snapshot_taxonomy)
    assert run.is_success and clustered.home.current_snapshot.exists() and clustered.cluster.ever == []


def test_the_retune_lock_is_held_from_the_first_step_to_the_last(clustered):
    free: list[float] = []
    watching, ended = threading.Event(), threading.Event()

    def watch() -> None:
        while not ended.is_set():
            try:
                with FileLock(clustered.home.root / "tail.lock", timeout=0, thread_local=False):
                    if (clustered.home.root / "first").exists():
                        free.append(time.time())
            except Timeout:
                watching.set()

    thread = meanwhile(watch)
    run = clustered.run(pod_jobs.small_steps)
    ended.set()
    thread.join()
    assert run.is_success and watching.is_set()
    between = [moment for moment in free if moment < (clustered.home.root / "second").stat().st_mtime]
    assert between == []


# --- big steps, in pods of their own


def test_a_step_that_died_with_the_runs_pod_is_run_again_by_the_next(clustered):
    handler = step_pods.StepPods(**options(clustered))
    context: Any = SimpleNamespace(execute_step_args=SimpleNamespace(step_keys_to_execute=["small"]), step_tags={"small": {}})
    assert handler.check_step_health(context).unhealthy_reason == "the run's pod that executed it is gone"


def options(clustered: Clustered) -> dict[str, Any]:
    file = str(clustered.cluster.kubeconfig)
    return {"image": None, "container_context": K8sContainerContext(), "load_incluster_config": False, "kubeconfig_file": file}


def state(**named: Any) -> Any:
    return SimpleNamespace(**{"terminated": None, "waiting": None, **named})


def pod(phase: str, reason: str | None = None, container: Any = None, condition: Any = None, minutes: float = 1) -> Any:
    status = SimpleNamespace(
        phase=phase,
        reason=reason,
        container_statuses=[SimpleNamespace(state=container)] if container else None,
        conditions=[condition] if condition else None,
    )
    return SimpleNamespace(status=status, minutes=minutes)


PULL = state(waiting=SimpleNamespace(reason="ImagePullBackOff", message="no such image: lab:2"))
NO_NODE = SimpleNamespace(type="PodScheduled", status="False", reason="Unschedulable", message="0/3 nodes have a GPU")
DRAINED = SimpleNamespace(type="DisruptionTarget", status="True", reason="EvictionByEvictionAPI", message="")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (pod("Running", container=state()), None),
        (pod("Succeeded"), None),
        (pod("Failed", container=state(terminated=SimpleNamespace(reason="OOMKilled", exit_code=137))), "its memory ran out"),
        (pod("Failed", reason="Evicted"), "its node was short of memory"),
        (pod("Failed", condition=DRAINED), "its node was drained"),
        (pod("Failed", reason="DeadlineExceeded"), "its time was over: see deadline_hours"),
        (pod("Failed", container=state(terminated=SimpleNamespace(reason="Error", exit_code=3))), "ended with code 3"),
        (pod("Unknown"), "its pod was lost"),
        (pod("Pending", container=PULL), None),
        (pod("Pending", container=PULL, minutes=6), "ImagePullBackOff: no such image: lab:2"),
        (pod("Pending", condition=NO_NODE, minutes=59), None),
        (pod("Pending", condition=NO_NODE, minutes=61), "waited 61 minutes for a node: 0/3 nodes have a GPU"),
    ],
)
def test_what_became_of_a_pod_is_said_in_words(found, said):
    created = datetime.now(UTC) - timedelta(minutes=found.minutes)
    problem = pod_problem(SimpleNamespace(status=found.status, metadata=SimpleNamespace(creation_timestamp=created)))
    assert problem is None if said is None else said in problem


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "reason", "said"),
    [
        (signal.SIGKILL, "OOMKilled", "its memory ran out"),
        (signal.SIGTERM, "Evicted", ""),  # the step itself asks to be tried again
    ],
)
def test_a_step_whose_pod_is_lost_is_tried_again(clustered, number, reason, said):
    clustered.fault("hang")
    meanwhile(lambda: clustered.cluster.end(started(clustered), number, reason))
    run = clustered.run(pod_jobs.big_step)
    assert run.is_success and len(clustered.cluster.of_step("big")) == 2
    assert said in " ".join(clustered.why(run))


@pytest.mark.long
def test_bad_data_fails_once(clustered):
    clustered.fault("bad data")
    run = clustered.run(pod_jobs.big_step)
    assert run.status == dg.DagsterRunStatus.FAILURE and len(clustered.cluster.of_step("big")) == 1


@pytest.mark.long
def test_a_pod_without_a_node_is_given_up_and_deleted(clustered):
    clustered.fault("")
    clustered.cluster.nodes_free = False

    def grow_old() -> None:
        for attempt in (0, 1):
            wait_for("the pod", lambda number=attempt: len(clustered.cluster.of_step("big")) > number, 60, every=0.1)
            clustered.cluster.older(clustered.cluster.of_step("big")[attempt], 61)

    meanwhile(grow_old)
    run = clustered.run(pod_jobs.big_step)
    assert run.status == dg.DagsterRunStatus.FAILURE and clustered.cluster.pods == {}
    assert "waited 61 minutes for a node: 0/1 nodes have a GPU" in " ".join(clustered.why(run))


@pytest.mark.long
def test_an_api_server_that_is_away_for_a_while_costs_nothing(clustered):
    clustered.fault("hang")

    def away() -> None:
        started(clustered)
        clustered.cluster.away = True
        time.sleep(3)
        clustered.cluster.away = False
        clustered.cluster.end(clustered.cluster.of_step("big")[0], signal.SIGKILL)

    meanwhile(away)
    run = clustered.run(pod_jobs.big_step)
    assert run.is_success and len(clustered.cluster.of_step("big")) == 2


# --- training on several nodes


@pytest.mark.long
def test_two_nodes_train_the_adapter_that_one_process_trains(clustered, tmp_path, tiny_model):
    one, two = (two_packs_a_step(tmp_path / name, tiny_model) for name in ("one", "two"))
    (clustered.home.root / "spec").write_text(f"{two.output}/spec.json")
    run = clustered.run(pod_jobs.train_on_several_nodes)
    logs = [pod.log.read_text()[-2000:] for pod in clustered.cluster.ever]
    assert run.is_success, logs
    assert len(logs) == 2 and clustered.cluster.train_jobs == clustered.cluster.pods == {}
    assert train(one, lambda text: None)
    assert_same_adapter(tmp_path / "one", tmp_path / "two")
    said = [entry.user_message for entry in clustered.instance.all_logs(run.run_id)]
    assert any("12 rows in 3 packs" in each for each in said)  # the messages of the first node


@pytest.mark.long
def test_the_reason_of_a_training_that_failed_on_several_nodes_is_told(clustered, tmp_path, tiny_model):
    spec = two_packs_a_step(tmp_path / "two", tiny_model)
    Path(spec.dataset).unlink()
    (clustered.home.root / "spec").write_text(f"{spec.output}/spec.json")
    run = clustered.run(pod_jobs.train_on_several_nodes)
    assert run.status == dg.DagsterRunStatus.FAILURE and Path(spec.dataset).name in " ".join(clustered.why(run))
    assert clustered.cluster.train_jobs == clustered.cluster.pods == {}


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_cancelled_run_deletes_its_train_job(clustered, tmp_path, tiny_model):
    spec = two_packs_a_step(tmp_path / "two", tiny_model, epochs=900)
    (clustered.home.root / "spec").write_text(f"{spec.output}/spec.json")
    run = launched(clustered, pod_jobs.train_on_several_nodes)
    saved = lambda: list((tmp_path / "two").glob("resume-*/checkpoint-*/complete.json"))  # noqa: E731
    wait_for("a saved state", saved, 600, every=0.1)
    assert clustered.instance.run_launcher.terminate(run.run_id)
    wait_for("the end of the run", lambda: clustered.instance.get_run_by_id(run.run_id).is_finished, 120)
    assert clustered.instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.CANCELED
    assert clustered.cluster.train_jobs == clustered.cluster.pods == {}
    nodes = [pod for pod in clustered.cluster.ever if "-node-0-" in pod.name]
    wait_for("the end of both nodes", lambda: all(pod.code is not None for pod in nodes), 120)


# --- the run's pod


def launched(clustered: Clustered, job: Callable[[], Any], **state: Any) -> dg.DagsterRun:
    """A run that the run launcher started in a pod, as the daemon does."""
    recon = dg.reconstructable(job)
    run = clustered.instance.create_run_for_job(recon.get_definition(), job_code_origin=recon.get_python_origin(), **state)
    clustered.instance.run_launcher.launch_run(LaunchRunContext(run, workspace=None))
    return run


def monitored(clustered: Clustered, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    """The status of a run after the daemon has looked at it."""
    context: Any = SimpleNamespace(instance=clustered.instance, create_request_context=lambda: None)
    assert [error for error in execute_run_monitoring_iteration(context, logging.getLogger("daemon")) if error] == []
    found = clustered.instance.get_run_by_id(run.run_id)
    assert found
    return found.status


def test_a_run_is_lost_with_its_job_and_not_because_the_api_server_is_away(clustered):
    clustered.cluster.nodes_free = False
    run = launched(clustered, pod_jobs.small_steps, status=dg.DagsterRunStatus.STARTED)
    clustered.cluster.away = True
    assert monitored(clustered, run) == dg.DagsterRunStatus.STARTED
    clustered.cluster.away = False
    assert monitored(clustered, run) == dg.DagsterRunStatus.STARTED
    clustered.cluster.delete(clustered.cluster.ever[-1].name)
    assert monitored(clustered, run) == dg.DagsterRunStatus.FAILURE


@pytest.mark.long
@pytest.mark.parametrize("cancelled", [True, False])
def test_when_the_runs_pod_goes_its_steps_pods_go(clustered, cancelled):
    clustered.fault("hang")
    run = launched(clustered, pod_jobs.big_step)
    step = started(clustered)
    assert len(clustered.cluster.pods) == 2
    if cancelled:
        assert clustered.instance.run_launcher.terminate(run.run_id)
    else:  # the run's pod is killed, and its job then cleaned up
        (run_pod,) = [pod for pod in clustered.cluster.ever if pod is not step]
        clustered.cluster.end(run_pod, signal.SIGKILL, "OOMKilled")
        clustered.cluster.delete(run_pod.name)
    assert clustered.cluster.pods == {}
    assert wait_for("the end of the step's process", lambda: step.code is not None, 60)
    if cancelled:
        wait_for("the end of the run", lambda: clustered.instance.get_run_by_id(run.run_id).is_finished, 60)
        assert clustered.instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.CANCELED
