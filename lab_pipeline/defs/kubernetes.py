"""Choose where steps run: on this machine all in their run's process, on Kubernetes the big ones each in a pod of its own.

Image, service account, volumes and environment of all pods come from the run launcher and the code location through
dagster-k8s. This module adds what the settings `k8s` say of the pods of single steps.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

import dagster as dg

from lab_pipeline.config.deployment import KubernetesSettings, PodSettings, deployment
from lab_pipeline.config.settings import Settings
from lab_pipeline.config.teachers import EmbeddedTeacherSettings
from lab_pipeline.defs.code_location import SETTINGS
from lab_pipeline.defs.private_dagster import DagsterPipesExecutionError
from lab_pipeline.training.failure import LONGEST_STEP_SECONDS

Kind = Literal["training", "evaluation", "generation"]

POD_TAG = "dagster-k8s/config"
"""Op tag with the pod of a step; a step without it runs in its run's pod."""

_SECONDS_TO_REPORT = 30
"""How much of the time for saving is left to report to Dagster that the step was interrupted."""


class TrainJobFailed(DagsterPipesExecutionError):
    """A training on several nodes ended without success, because it failed or because nodes were lost."""


def executor() -> dg.ExecutorDefinition:
    """Return the executor of all jobs.

    Raises:
        LabError: `LAB_DEPLOYMENT` names no deployment.
    """
    if deployment() == "k8s":
        from lab_pipeline.defs.step_pods import step_pods_executor

        return step_pods_executor
    # A run has its own process, and so has training; a process for each step would only add seconds.
    return dg.in_process_executor


def trainer() -> dg.PipesClient:
    """Return what starts training processes: one beside the step, or on a cluster those of several nodes."""
    if deployment() == "k8s" and _on_several_nodes("training", SETTINGS):
        from lab_pipeline.defs.train_job import TrainJobClient

        return TrainJobClient(SETTINGS.k8s)
    return dg.PipesSubprocessClient(forward_termination=True, termination_timeout_seconds=seconds_to_save())


def pod_tags(kind: Kind, settings: Settings = SETTINGS) -> dict[str, Any]:
    """Return the op tags that give a step its own pod on Kubernetes; none if the run's pod does for it.

    It does for what is cheap, and for watching a training on several nodes.
    """
    if (kind == "generation" and not _teaches_itself(settings)) or _on_several_nodes(kind, settings):
        return {}
    k8s, pod = settings.k8s, getattr(settings.k8s, kind)
    config = {
        "container_config": {
            "resources": resources(pod),
            # torch's data loaders share tensors through /dev/shm, which has only 64 MiB in a container by default
            "volume_mounts": [{"name": "shm", "mount_path": "/dev/shm"}],
        },
        "pod_spec_config": {
            **node_choice(pod),
            "volumes": [{"name": "shm", "empty_dir": {"medium": "Memory"}}],
            "termination_grace_period_seconds": k8s.save_seconds,
        },
        "job_spec_config": {"active_deadline_seconds": k8s.deadline_hours * 3600, "ttl_seconds_after_finished": 7200},
        "job_metadata": {"labels": queue_label(k8s, pod)},
        "pod_template_spec_metadata": {"labels": {"lab-pipeline/step": kind}},  # network policies select by it
    }
    return {POD_TAG: config}


def lost_pod_retries(kind: Kind, settings: Settings = SETTINGS) -> dg.RetryPolicy | None:
    """Return the retry policy of steps in pods of their own, None for others: if their process is lost, so is the run.

    Only what is no error of the data is tried again, such as a lost or evicted pod (see `errors_as_failures`); the step goes on
    from what it had saved.
    """
    if deployment() == "local" or not pod_tags(kind, settings):
        return None
    return dg.RetryPolicy(max_retries=settings.k8s.retries, delay=30, backoff=dg.Backoff.EXPONENTIAL)


def in_own_pod() -> bool:
    """Tell whether this process runs a single step in a pod of its own."""
    return "DAGSTER_RUN_STEP_KEY" in os.environ  # set by dagster-k8s


def seconds_to_save() -> int:
    """Return for how long an interrupted step waits for the training process to save its state."""
    return SETTINGS.k8s.save_seconds - _SECONDS_TO_REPORT if in_own_pod() else LONGEST_STEP_SECONDS


def _teaches_itself(settings: Settings) -> bool:
    return any(isinstance(model, EmbeddedTeacherSettings) for model in (settings.teacher, settings.judge))


def _on_several_nodes(kind: Kind, settings: Settings) -> bool:
    return kind == "training" and settings.k8s.training.nodes > 1


def queue_label(k8s: KubernetesSettings, pod: PodSettings) -> dict[str, str]:
    """Return the label by which Kueue admits pods with GPUs; none without a queue."""
    return {"kueue.x-k8s.io/queue-name": k8s.queue} if k8s.queue and pod.gpus else {}


def resources(pod: PodSettings) -> Mapping[str, Mapping[str, str]]:
    gpus = {"nvidia.com/gpu": str(pod.gpus)} if pod.gpus else {}
    return {"requests": {"cpu": pod.cpu, "memory": pod.memory}, "limits": {"memory": pod.memory, **gpus}}


def node_choice(pod: PodSettings) -> dict[str, Any]:
    """Return the part of a pod's spec that says on which nodes it may run."""
    gpu = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}] if pod.gpus else []
    further = [{name: value for name, value in each if value} for each in pod.tolerations]
    return {"nodeSelector": dict(pod.node_selector), "tolerations": gpu + further}
