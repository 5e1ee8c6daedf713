"""Execute one run in this process, which ends when the process that started it ends.

The command line starts `python -m lab_pipeline.runtime.run_worker JOB LAUNCH [FIRST LAST]`. The run gets LAUNCH as a tag, by
which the command line finds it; FIRST and LAST are the first and the last of a range of leaf partitions.
The daemon starts `python -m lab_pipeline.runtime.run_worker api execute_run ...`, with the arguments of Dagster's own command.
"""

import runpy
import sys

import dagster as dg

from lab_pipeline.core.processes import die_with_parent, this_process
from lab_pipeline.defs.private_dagster import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    MAX_RETRIES_TAG,
    LoadableTargetOrigin,
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
    execute_run,
)
from lab_pipeline.runtime.reaping import PROCESS_TAG

LAUNCH_TAG = "lab/launch"
_CODE_LOCATION = ManagedGrpcPythonEnvCodeLocationOrigin(
    LoadableTargetOrigin(module_name="lab_pipeline.definitions"), "lab_pipeline"
)
"""The code location of `workspace.yaml`, so that the UI shows the runs of the command line as its own."""


def snapshot_taxonomy() -> dg.JobDefinition:
    return _job("snapshot_taxonomy")


def refresh_leaves() -> dg.JobDefinition:
    return _job("refresh_leaves")


def retune() -> dg.JobDefinition:
    return _job("retune")


def _job(name: str) -> dg.JobDefinition:
    from lab_pipeline.definitions import defs

    return defs.resolve_job_def(name)


JOBS = {job.__name__: job for job in (snapshot_taxonomy, refresh_leaves, retune)}


def main(job: str, launch: str, first: str | None = None, last: str | None = None) -> int:
    # the command line says that its run failed; the daemon, if it is there, must not start the run again
    tags = {LAUNCH_TAG: launch, PROCESS_TAG: this_process(), MAX_RETRIES_TAG: "0"}
    if first and last:
        tags |= {ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last}
    worked = dg.reconstructable(JOBS[job])
    with dg.DagsterInstance.get() as instance:
        run = instance.create_run_for_job(
            worked.get_definition(),
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            tags=tags,
            remote_job_origin=RemoteJobOrigin(RemoteRepositoryOrigin(_CODE_LOCATION, "__repository__"), job),
            job_code_origin=worked.get_python_origin(),
        )
        return 0 if execute_run(worked, run, instance).success else 1


if __name__ == "__main__":
    die_with_parent()
    if sys.argv[1] == "api":
        runpy.run_module("dagster", run_name="__main__", alter_sys=True)
    sys.exit(main(*sys.argv[1:]))
