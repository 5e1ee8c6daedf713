"""Read whether the pipeline runs on this machine or on Kubernetes, and define the settings of the pods there."""

from __future__ import annotations

import os
import re
from typing import Annotated, Literal

from pydantic import Field

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.validation import Section

_QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"
_NAME = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_LABEL_KEY = rf"^([a-z0-9]([a-z0-9.-]{{0,251}}[a-z0-9])?/)?{_NAME}$"

Quantity = Annotated[str, Field(pattern=re.compile(_QUANTITY))]
LabelKey = Annotated[str, Field(pattern=re.compile(_LABEL_KEY))]
LabelValue = Annotated[str, Field(pattern=re.compile(rf"^({_NAME})?$"))]


class Toleration(Section):
    """A taint of nodes on which a pod may run all the same; the keys are those of Kubernetes."""

    key: LabelKey
    operator: Literal["Exists", "Equal"] = "Exists"
    value: LabelValue = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(None, description="none = all effects")


class PodSettings(Section):
    """What the pods of one kind of step ask for, and on which nodes they run."""

    cpu: Quantity = Field("4", description="CPUs, as a Kubernetes quantity; idle ones are used beyond it")
    memory: Quantity = Field("32Gi", description="Memory, as a Kubernetes quantity; a pod that uses more is killed")
    gpus: int = Field(1, ge=0, le=16, description="NVIDIA GPUs of one node. Their taint is tolerated")
    node_selector: dict[LabelKey, LabelValue] = Field({}, description="Labels that the node must have")
    tolerations: list[Toleration] = Field([], description="Further taints to tolerate")


class TrainingPodSettings(PodSettings):
    """What the pods of a training ask for, each on a node of its own if there are several."""

    nodes: int = Field(1, ge=1, le=64, description="Number of nodes, each with `gpus`. More than one needs Kubeflow Trainer")
    runtime: LabelValue = Field("lab-training", description="TrainingRuntime of Kubeflow Trainer, for more than one node")


class KubernetesSettings(Section):
    """The pods of steps that are too big for their run's pod. All other steps and checks run in the run's pod."""

    training: TrainingPodSettings = Field(TrainingPodSettings(), description="knowledge_checkpoint and skills_checkpoint")
    evaluation: PodSettings = Field(PodSettings(), description="evaluation_report")
    generation: PodSettings = Field(PodSettings(), description="Refreshes of leaves, if an embedded model teaches or judges")
    retries: int = Field(3, ge=0, le=20, description="How often such a step is tried again after its pod was lost")
    save_seconds: int = Field(300, ge=60, description="Time for an evicted pod to save its state before it is killed")
    pending_minutes: int = Field(60, ge=1, description="How long a pod may wait for a node; the wait in a queue is not limited")
    deadline_hours: int = Field(24, ge=1, description="Maximum life of such a pod, waiting included")
    queue: LabelValue | None = Field(None, description="Kueue LocalQueue that admits pods with GPUs. none = no queue")


def deployment() -> Literal["local", "k8s"]:
    """Return `LAB_DEPLOYMENT`: 'local' (the default, everything on this machine) or 'k8s' (runs and big steps in pods).

    Raises:
        LabError: The variable has another value.
    """
    found = os.environ.get("LAB_DEPLOYMENT") or "local"
    if found == "local":
        return "local"
    if found == "k8s":
        return "k8s"
    raise LabError(f"LAB_DEPLOYMENT: expected 'local' or 'k8s', found {found!r}; unset it to run on this machine")
