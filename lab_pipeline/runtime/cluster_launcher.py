"""Launch each run in a pod, and do not take a run for lost because Kubernetes does not answer."""

from __future__ import annotations

import dagster as dg
from dagster_k8s.launcher import K8sRunLauncher

from lab_pipeline.defs.private_dagster import CheckRunHealthResult, WorkerStatus

_NO_JOB = "could not be found"
"""By which Dagster's launcher says that the API server answered, and knows no such job."""


class ClusterRunLauncher(K8sRunLauncher):
    """Dagster's launcher, patient with the API server; `deploy/values.yaml` names this class.

    For Dagster's launcher a run's state is unknown while the API server is away, and run monitoring fails such runs: their pods
    would work on beside those of the retry.
    """

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        health = super().check_run_worker_health(run)
        if health.status == WorkerStatus.UNKNOWN and not str(health.msg).endswith(_NO_JOB):
            return CheckRunHealthResult(WorkerStatus.RUNNING, health.msg)
        return health
