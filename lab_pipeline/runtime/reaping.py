"""Mark runs whose process was killed as failed, and free their pool slots, so that they do not block other runs."""

import dagster as dg

from lab_pipeline.core.processes import is_alive
from lab_pipeline.core.progress import Say

PROCESS_TAG = "lab/process"
"""Run tag with the name of the process that executes the run. Nothing else in a local instance shows that it is dead."""

_UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def reap_dead_runs(instance: dg.DagsterInstance, say: Say) -> int:
    """Mark unfinished runs whose process is gone as failed, and free the pool slots of all ended runs.

    Each run that is marked is reported to `say`; their number is returned. Runs without a `PROCESS_TAG` are left alone.
    """
    dead = [
        run
        for run in instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED))
        if PROCESS_TAG in run.tags and not is_alive(run.tags[PROCESS_TAG])
    ]
    for run in dead:
        instance.report_run_failed(run, "its process was killed")
        say(f"run {run.run_id} of {run.job_name} was killed: marked as failed, its pool slot freed")
    for run_id in instance.event_log_storage.get_concurrency_run_ids():
        holder = instance.get_run_by_id(run_id)
        if holder is None or holder.is_finished:  # on a full disk, a failed run cannot free its own slot
            instance.event_log_storage.free_concurrency_slots_for_run(run_id)
    return len(dead)
