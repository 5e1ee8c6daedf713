"""Jobs for tests of pods: each pod imports this module anew. The file `faults` in the home says how the big step ends."""

import os
import time
from pathlib import Path

import dagster as dg
from dagster_k8s import k8s_job_executor

from lab_pipeline.config.deployment import KubernetesSettings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import default_home
from lab_pipeline.defs.checkpoints.assets import run_trainer
from lab_pipeline.defs.kubernetes import pod_tags
from lab_pipeline.defs.resources import RetuneLock, errors_as_failures
from lab_pipeline.defs.step_pods import step_pods_executor
from lab_pipeline.defs.train_job import TrainJobClient
from lab_pipeline.runtime import run_worker


def faults() -> Path:
    return default_home() / "faults"


def waypoint(name: str) -> Path:
    return default_home() / name


@dg.op(required_resource_keys={"retune_lock"})
def first():
    waypoint("first").write_text(str(os.getpid()))


@dg.op(required_resource_keys={"retune_lock"}, ins={"after": dg.In(dg.Nothing)})
def second():
    waypoint("second").write_text(str(os.getpid()))


@dg.job(executor_def=step_pods_executor, resource_defs={"retune_lock": RetuneLock(root="unused", held_by_run=True)})
def small_steps():
    second(first())


@dg.op(tags=pod_tags("training"), retry_policy=dg.RetryPolicy(max_retries=1, delay=0))
def big(context: dg.OpExecutionContext) -> None:
    fault = faults().read_text().strip() if context.retry_number == 0 else ""
    with errors_as_failures():
        if fault == "bad data":
            raise LabError("row 3: no answer")
        waypoint(f"big-{context.retry_number}").write_text(str(os.getpid()))
        while fault == "hang":
            time.sleep(0.1)


@dg.job(executor_def=step_pods_executor)
def big_step():
    big()


@dg.op
def several_nodes(context: dg.OpExecutionContext) -> None:
    settings = KubernetesSettings.model_validate({"training": {"nodes": 2, "gpus": 0}})
    spec = Path(waypoint("spec").read_text())
    with errors_as_failures():
        run_trainer(context, TrainJobClient(settings, poll_seconds=0.5), spec)  # type: ignore[arg-type]


@dg.job(executor_def=step_pods_executor)
def train_on_several_nodes():
    several_nodes()


def every_step_in_a_pod() -> dg.JobDefinition:
    """The retune as dagster-k8s's own executor runs it."""
    return run_worker.retune().with_executor_def(k8s_job_executor)
