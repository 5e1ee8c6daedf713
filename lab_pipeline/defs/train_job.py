"""Train on several nodes at once: by a `TrainJob` of Kubeflow Trainer, which the run's pod starts and watches.

The job's pods are those of the `TrainingRuntime` in `deploy/kubernetes/training-runtime.yaml`. Context and messages of Dagster
Pipes are files in the checkpoint's folder, on the volume that all pods share. This module imports the Kubernetes client.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import urllib3
from dagster_k8s.launcher import K8sRunLauncher
from kubernetes import client

from lab_pipeline.config.deployment import KubernetesSettings
from lab_pipeline.defs.kubernetes import TrainJobFailed, node_choice, queue_label, resources

API = {"group": "trainer.kubeflow.org", "version": "v1alpha1", "plural": "trainjobs"}
_POLL_SECONDS = 5.0
_NODE = "node"
"""Name that Kubeflow Trainer gives the training's part of a runtime."""


class TrainJobClient(dg.PipesClient):
    """Runs a command of `python -m` by torchrun on several nodes, and deletes the job when it ends or the run is cancelled."""

    def __init__(self, settings: KubernetesSettings, poll_seconds: float = _POLL_SECONDS) -> None:
        self._settings = settings
        self._poll_seconds = poll_seconds
        self._jobs = client.CustomObjectsApi()

    def run(  # type: ignore[override]
        self,
        *,
        context: dg.OpExecutionContext | dg.AssetExecutionContext,
        command: Sequence[str],
        env: Mapping[str, str],
        extras: dict[str, Any] | None = None,
    ) -> dg.PipesClientCompletedInvocation:
        """Train as the spec file says that ends the command.

        Raises:
            TrainJobFailed: the job failed, or somebody deleted it.
        """
        launcher, folder, name = context.instance.run_launcher, Path(command[-1]).parent, f"lab-{uuid.uuid4().hex[:12]}"
        assert isinstance(launcher, K8sRunLauncher)
        where = {**API, "namespace": launcher.job_namespace}
        injector = dg.PipesFileContextInjector(str(folder / "pipes-context.json"))
        # a cancelled training writes its last message after its job was deleted, so the file stays
        reader = dg.PipesFileMessageReader(str(folder / "pipes-messages.jsonl"), cleanup_file=False)
        with dg.open_pipes_session(context, injector, reader, extras) as session:
            job = train_job(name, command, {**env, **session.get_bootstrap_env_vars()}, self._settings)
            job["metadata"]["ownerReferences"] = _this_pod(launcher.job_namespace)
            self._jobs.create_namespaced_custom_object(**where, body=job)
            context.log.info(f"TrainJob {name} on {self._settings.training.nodes} nodes")
            try:
                self._wait(name, where, context)
            finally:  # no GPU is kept
                self._jobs.delete_namespaced_custom_object(**where, name=name)
        return dg.PipesClientCompletedInvocation(session)

    def _wait(self, name: str, where: Mapping[str, str], context: dg.OpExecutionContext | dg.AssetExecutionContext) -> None:
        while True:
            try:
                job = self._jobs.get_namespaced_custom_object(**where, name=name)
            except (client.ApiException, urllib3.exceptions.HTTPError) as error:
                if isinstance(error, client.ApiException) and error.status == 404:
                    raise TrainJobFailed(f"TrainJob {name} was deleted") from None
                context.log.warning(f"TrainJob {name}: Kubernetes does not answer: {error}")
                job = {}
            reached = {each["type"]: each for each in job.get("status", {}).get("conditions", []) if each["status"] == "True"}
            if "Complete" in reached:
                return
            if failed := reached.get("Failed"):
                raise TrainJobFailed(f"TrainJob {name}: {failed.get('reason')}: {failed.get('message')}")
            time.sleep(self._poll_seconds)


def train_job(name: str, command: Sequence[str], environment: Mapping[str, str], k8s: KubernetesSettings) -> dict[str, Any]:
    """Return the `TrainJob` that runs a command of `python -m` by torchrun, on as many nodes as the settings say."""
    pods = k8s.training
    pod = {**node_choice(pods), "terminationGracePeriodSeconds": k8s.save_seconds}
    node = {"name": _NODE, "template": {"spec": {"template": {"spec": pod}}}}
    return {
        "apiVersion": f"{API['group']}/{API['version']}",
        "kind": "TrainJob",
        "metadata": {"name": name, "labels": queue_label(k8s, pods)},
        "spec": {
            "runtimeRef": {"apiGroup": API["group"], "kind": "TrainingRuntime", "name": pods.runtime},
            "activeDeadlineSeconds": k8s.deadline_hours * 3600,
            "trainer": {
                "numNodes": pods.nodes,
                "numProcPerNode": max(pods.gpus, 1),
                "resourcesPerNode": resources(pods),
                "command": ["torchrun", *command[command.index("-m") :]],
                "env": [{"name": key, "value": value} for key, value in environment.items()],
            },
            "runtimePatches": [
                {"manager": "lab-pipeline", "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [node]}}}}
            ],
        },
    }


def _this_pod(namespace: str) -> list[dict[str, Any]]:
    """Return this pod as owner, so that what it owns is deleted with it; nothing outside of a pod."""
    if "HOSTNAME" not in os.environ:
        return []
    pod = client.CoreV1Api().read_namespaced_pod(os.environ["HOSTNAME"], namespace).metadata
    return [{"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid}]
