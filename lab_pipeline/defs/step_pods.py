"""Execute a run on Kubernetes: small steps in the run's own pod, big ones each in a pod of its own.

A pod and the import of all packages take 5 to 30 seconds, and most steps and checks take less than that; so only a step whose
tags say so gets its own pod. The run's pod holds the retune lock from first step to last: no pod with a GPU waits for it. This
module imports the Kubernetes client, so `executor` imports it only there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.executor import K8sStepHandler
from dagster_k8s.launcher import K8sRunLauncher

from lab_pipeline.core.home import default_home
from lab_pipeline.defs.code_location import SETTINGS
from lab_pipeline.defs.kubernetes import POD_TAG
from lab_pipeline.defs.private_dagster import (
    CheckStepHealthResult,
    ExecutionPlan,
    PlanOrchestrationContext,
    RetryMode,
    StepDelegatingExecutor,
    StepHandlerContext,
    create_execution_plan,
    execute_plan_iterator,
    multiple_process_executor_requirements,
    raise_execution_interrupts,
)
from lab_pipeline.defs.resources import retune_lock

_SECONDS_TO_REPORT = 60
"""How long the events of a step may take from its pod's end to the run's pod."""

_WHY_POD_ENDED = {
    "OOMKilled": "its memory ran out: raise the step's memory in the settings (k8s)",
    "Evicted": "its node was short of memory or disk",
    "TerminationByKubelet": "its node was short of memory or disk, or shut down",
    "EvictionByEvictionAPI": "its node was drained",
    "Preempting": "a pod of higher priority took its place",
    "PreemptionByScheduler": "a pod of higher priority took its place",
    "DeletionByTaintManager": "its node was lost",
    "NodeLost": "its node was lost",
    "DeadlineExceeded": "its time was over: see deadline_hours in the settings (k8s)",
}
_IMAGE_MINUTES = 5
"""How long the image of a pod may be missing; the pod holds its GPU meanwhile."""
_NEVER_STARTS = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError")


@dg.executor(name="step_pods", requirements=multiple_process_executor_requirements())
def step_pods_executor(context: dg.InitExecutorContext) -> StepDelegatingExecutor:
    """Run steps in the run's pod, and those with a pod of their own there; needs dagster-k8s's run launcher."""
    launcher = context.instance.run_launcher
    assert isinstance(launcher, K8sRunLauncher), "dagster.yaml must name dagster-k8s's K8sRunLauncher as the run launcher"
    handler = StepPods(
        image=None,
        container_context=K8sContainerContext(),
        load_incluster_config=launcher.load_incluster_config,
        kubeconfig_file=launcher.kubeconfig_file,
        enable_owner_references=True,  # when the run's pod goes, its steps' pods go, and free their GPUs
    )
    return RunPodExecutor(handler, RetryMode.ENABLED, should_verify_step=True)


class RunPodExecutor(StepDelegatingExecutor):
    """Executes a run from the run's pod; if a step of it needs the retune lock, it is held for the whole run."""

    def execute(self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> Iterator[dg.DagsterEvent]:
        job = plan_context.reconstructable_job.get_definition()
        steps = execution_plan.get_steps_to_execute_in_topo_order()
        ops = [job.get_node(step.node_handle).definition for step in steps]
        required = {key for op in ops if isinstance(op, dg.OpDefinition) for key in op.required_resource_keys}
        with ExitStack() as held:
            if "retune_lock" in required:
                with raise_execution_interrupts():  # a run that waits can be cancelled
                    held.enter_context(retune_lock(default_home(), plan_context.log.info))
            yield from super().execute(plan_context, execution_plan)


class StepPods(K8sStepHandler):
    """Starts steps, and watches the pods of those that have one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._done_here: set[str] = set()

    def launch_step(self, step_handler_context: StepHandlerContext) -> Iterator[dg.DagsterEvent]:
        key = self._get_step_key(step_handler_context)
        if POD_TAG in step_handler_context.step_tags[key]:
            yield from super().launch_step(step_handler_context)
        else:
            _run_here(step_handler_context)
            self._done_here.add(key)

    def check_step_health(self, step_handler_context: StepHandlerContext) -> CheckStepHealthResult:
        """Tell whether a step's pod may still end well; if not, say why, and delete it, so that no GPU waits for nothing."""
        key = self._get_step_key(step_handler_context)
        if POD_TAG not in step_handler_context.step_tags[key]:
            if key in self._done_here:
                return CheckStepHealthResult.healthy()
            return CheckStepHealthResult.unhealthy("the run's pod that executed it is gone")
        job, namespace = self._job_and_namespace(step_handler_context)
        status = self._api_client.get_job_status(job_name=job, namespace=namespace)
        if status is None:
            return CheckStepHealthResult.unhealthy(f"its Kubernetes job {job} was deleted")
        problem = _job_problem(status, self._api_client.get_pods_in_job(job, namespace))
        if problem is None:
            return CheckStepHealthResult.healthy()
        if not status.failed:
            self._api_client.delete_job(job_name=job, namespace=namespace)
        return CheckStepHealthResult.unhealthy(f"Kubernetes job {job}: {problem}")

    def terminate_step(self, step_handler_context: StepHandlerContext) -> Iterator[dg.DagsterEvent]:
        if POD_TAG in step_handler_context.step_tags[self._get_step_key(step_handler_context)]:
            yield from super().terminate_step(step_handler_context)

    def _job_and_namespace(self, context: StepHandlerContext) -> tuple[str, str]:
        namespace = self._get_container_context(context).namespace
        assert namespace
        return self._get_k8s_step_job_name(context), namespace


def _run_here(context: StepHandlerContext) -> None:
    """Execute a step in this process; its events go to the event log, where the executor finds them."""
    arguments, run, job = context.execute_step_args, context.dagster_run, context._plan_context.reconstructable_job
    plan = create_execution_plan(job, run.run_config, arguments.step_keys_to_execute, known_state=arguments.known_state)
    for _ in execute_plan_iterator(plan, job, run, context.instance, arguments.retry_mode, run.run_config):
        pass


def _job_problem(status: Any, pods: list[Any]) -> str | None:
    """Return in words why a job will never end its step, None if it may still."""
    if problem := next(filter(None, map(pod_problem, pods)), None):
        return problem
    if status.failed:
        failed = [condition.reason for condition in status.conditions or [] if condition.type == "Failed"]
        return _WHY_POD_ENDED.get(failed[0] if failed else "", "its pod was lost")
    ended = status.completion_time
    if status.succeeded and ended and (datetime.now(UTC) - ended).total_seconds() > _SECONDS_TO_REPORT:
        return "its pod ended without reporting the step's end"
    return None


def pod_problem(pod: Any) -> str | None:
    """Return in words why a pod failed, or why it is not going to start; None if it runs, ended well or may still start."""
    containers = pod.status.container_statuses or []
    conditions = {condition.type: condition for condition in pod.status.conditions or [] if condition.reason}
    if pod.status.phase in ("Failed", "Unknown"):
        ended = [each.state.terminated for each in containers if each.state.terminated]
        target = conditions.get("DisruptionTarget")
        reasons = [pod.status.reason, target and target.reason, *(each.reason for each in ended)]
        known = next((_WHY_POD_ENDED[reason] for reason in reasons if reason in _WHY_POD_ENDED), None)
        return known or (f"its container ended with code {ended[0].exit_code}" if ended else "its pod was lost")
    if pod.status.phase != "Pending":
        return None
    minutes = (datetime.now(UTC) - pod.metadata.creation_timestamp).total_seconds() / 60
    waiting = [each.state.waiting for each in containers if each.state.waiting]
    for each in waiting:
        if each.reason in _NEVER_STARTS and minutes > _IMAGE_MINUTES:
            return f"its container cannot start: {each.reason}: {each.message}"
    if minutes > SETTINGS.k8s.pending_minutes:
        scheduled = conditions.get("PodScheduled")
        why = scheduled.message if scheduled and scheduled.status == "False" else "its containers do not start"
        return f"it waited {minutes:.0f} minutes for a node: {why}"
    return None
