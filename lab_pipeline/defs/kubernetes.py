"""The Kubernetes switch: under `LAB_DEPLOYMENT=k8s` every step is a pod of its own, and those that need a GPU ask for one.

Image, service account, volumes and environment of all pods come from the run launcher and the code location, as dagster-k8s
hands them down; only what is particular to GPU steps is said here.
"""

import os
from typing import Any

import dagster as dg

from lab_pipeline.config.deployment import deployment
from lab_pipeline.core.errors import LabError

_LONGEST_SECONDS = 86400
"""As `max_runtime_seconds` in `dagster.yaml`: a pod that waits for a GPU for ever outlives its run, and nobody removes it."""


def executor() -> dg.ExecutorDefinition:
    """The code location's executor; Dagster has one for all jobs.

    Raises:
        LabError: `LAB_DEPLOYMENT` names no deployment.
    """
    if deployment() == "k8s":
        from dagster_k8s import k8s_job_executor

        return k8s_job_executor
    # A run has a process of its own, and training another; a process for each step would only add seconds to it.
    return dg.in_process_executor


def gpu_op_tags() -> dict[str, Any]:
    """Op tags of a step that needs a GPU; only `k8s_job_executor` reads them.

    `LAB_GPU_MEMORY` is the pod's memory, a Kubernetes quantity (default 32Gi). `LAB_GPU_NODES` are labels of the nodes to
    choose, as `key=value` separated by commas (default: any node with a GPU).

    Raises:
        LabError: `LAB_GPU_NODES` is no list of labels.
    """
    memory = os.environ.get("LAB_GPU_MEMORY") or "32Gi"
    return {
        "dagster-k8s/config": {
            "container_config": {
                "resources": {"requests": {"memory": memory}, "limits": {"nvidia.com/gpu": "1", "memory": memory}},
                # torch's data loaders share tensors through /dev/shm, of which a container has 64 MiB by itself
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
