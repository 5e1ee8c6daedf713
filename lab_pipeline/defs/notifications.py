"""Crashed runs, told to the webhook."""

import dagster as dg

from lab_pipeline.core.errors import LabError
from lab_pipeline.defs.instructions.assets import LeavesFailed
from lab_pipeline.defs.resources import Lab
from lab_pipeline.reports.notifications import notify


@dg.run_failure_sensor(
    name="crashed_runs",
    default_status=dg.DefaultSensorStatus.RUNNING,
    monitor_all_code_locations=True,  # there is one; runs that the command line starts name none
)
def crashed_runs(context: dg.RunFailureSensorContext, lab: Lab) -> dg.SkipReason | None:
    """Tell people of a failed run: job, run and the first line of its error. Does nothing without a webhook.

    A run that failed only because leaves failed is no crash: the others are done, the leaf is red, and people are asked to
    look when it fails again and again.
    """
    failures = context.get_step_failure_events()
    crashes = [failure for failure in failures if not _is_of_leaves(failure)]
    if failures and not crashes:
        return dg.SkipReason("only leaves failed")
    said = failure_reason(crashes[0]) if crashes else context.failure_event.message
    run = context.dagster_run
    try:
        first_line = (said or "no reason given").strip().split("\n")[0]
        notify(lab.settings, f"Run {run.run_id} of {run.job_name} failed: {first_line}", context.log.warning)
    except LabError as error:
        return dg.SkipReason(str(error))
    return None


def _is_of_leaves(failure: dg.DagsterEvent) -> bool:
    error = failure.step_failure_data.error
    return error is not None and error.cls_name == LeavesFailed.__name__


def failure_reason(failure: dg.DagsterEvent) -> str:
    """What a step that failed says: the message meant for people, else that of the error behind all others."""
    told = failure.step_failure_data.user_failure_data
    if told and told.description:
        return told.description
    error = failure.step_failure_data.error
    while error and error.cause:
        error = error.cause
    return error.message.strip() if error else "no reason given"
