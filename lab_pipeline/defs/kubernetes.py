"""Switch to Kubernetes: with `LAB_DEPLOYMENT=k8s` every step runs in its own pod, and GPU steps request a GPU.

Image, service account, volumes and environment of all pods come from the run launcher and the code location through
dagster-k8s. This module only adds what GPU steps need.
"""

import os
from collections.abc import Mapping
from typing import Any

import dagster as dg

from lab_pipeline.config.deployment import deployment
from lab_pipeline.core.errors import LabError

_LONGEST_SECONDS = 86400
"""Longest life of a pod, as `max_runtime_seconds` in `dagster.yaml`; a pod that waits for a GPU might else never end."""


def executor() -> dg.ExecutorDefinition:
    """Return the executor of all jobs: on Kubernetes a pod for each step, else one process for the whole run.

    Raises:
        LabError: `LAB_DEPLOYMENT` names no deployment.
    """
    if deployment() == "k8s":
        from dagster_k8s import k8s_job_executor

        return k8s_job_executor
    # A run has its own process, and so has training; a process for each step would only add seconds.
    return dg.in_process_executor


def gpu_op_tags() -> Mapping[str, Any]:
    """Return the op tags of a step that needs a GPU; only `k8s_job_executor` reads them.

    `LAB_GPUS` sets the number of GPUs (default 1), `LAB_GPU_MEMORY` the memory of the pod as a Kubernetes quantity (default
    32Gi). `LAB_GPU_NODES` selects nodes by labels, `key=value` separated by commas (default: any node with a GPU).

    Raises:
        LabError: `LAB_GPU_NODES` is no list of labels.
    """
    gpus = os.environ.get("LAB_GPUS") or "1"
    memory = os.environ.get("LAB_GPU_MEMORY") or "32Gi"
    return {
        "dagster-k8s/config": {
            "container_config": {
                "resources": {"requests": {"memory": memory}, "limits": {"nvidia.com/gpu": gpus, "memory": memory}},
                # torch's data loaders share tensors through /dev/shm, which has only 64 MiB in a container by default
                "volume_mounts": [{"name": "shm", "mount_path": "/dev/shm"}],
            },
            "pod_spec_config": {
                "node_selector": _labels(os.environ.get("LAB_GPU_NODES", "")),
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
                "volumes": [{"name": "shm", "empty_dir": {"medium": "Memory"}}],
            },
            "job_spec_config": {"active_deadline_seconds": _LONGEST_SECONDS, "ttl_seconds_after_finished": 7200},
        }
    }


def _labels(text: str) -> dict[str, str]:
    labels = dict(label.strip().partition("=")[::2] for label in text.split(",") if label.strip())
    if not all(labels.keys()) or not all(labels.values()):
        raise LabError(f"LAB_GPU_NODES: expected key=value labels separated by commas, found {text!r}")
    return labels
