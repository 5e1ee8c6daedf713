"""Launch each local run in its own process, which a tag of the run names, so that a killed run is noticed.

Dagster's default launcher cannot tell that a run's process is gone: the run would stay "started" and hold its pool slot for
ever. With this launcher, run monitoring marks it as failed within seconds.
"""

import subprocess
from collections.abc import Mapping
from typing import Any, Self

import dagster as dg

from lab_pipeline.core.processes import interrupt, is_alive, name_of, python_module
from lab_pipeline.defs.private_dagster import (
    CheckRunHealthResult,
    ConfigurableClass,
    ConfigurableClassData,
    ExecuteRunArgs,
    LaunchRunContext,
    RunLauncher,
    WorkerStatus,
)
from lab_pipeline.runtime.reaping import PROCESS_TAG


class ProcessRunLauncher(RunLauncher, ConfigurableClass):
    """A launcher that starts each run as `python -m lab_pipeline.runtime.run_worker`; `dagster.yaml` names this class."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        self._inst_data = inst_data
        self._workers: dict[str, subprocess.Popen[bytes]] = {}
        super().__init__()

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        return cls(inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        run = context.dagster_run
        assert run.job_code_origin, "the daemon launches runs of a code location only"
        execute = ExecuteRunArgs(run.job_code_origin, run.run_id, self._instance.get_ref()).get_command_args()
        worker = subprocess.Popen(
            python_module("lab_pipeline.runtime.run_worker", *execute[execute.index("api") :]),
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in the UI's terminal ends the daemon, whose end then ends the run
        )
        self._reap_finished()
        self._workers[run.run_id] = worker
        self._instance.add_run_tags(run.run_id, {PROCESS_TAG: name_of(worker.pid) or "ended at once"})

    def _reap_finished(self) -> None:
        """Collect the exit codes of ended workers, which would otherwise stay zombies, and forget these workers."""
        self._workers = {run_id: worker for run_id, worker in self._workers.items() if worker.poll() is None}

    def terminate(self, run_id: str) -> bool:
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished or PROCESS_TAG not in run.tags:
            return False
        self._instance.report_run_canceling(run)
        return interrupt(run.tags[PROCESS_TAG])

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        self._reap_finished()
        if PROCESS_TAG not in run.tags:
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "no process is known to execute it")
        if is_alive(run.tags[PROCESS_TAG]):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        self._instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        return CheckRunHealthResult(WorkerStatus.FAILED, "its process was killed")
