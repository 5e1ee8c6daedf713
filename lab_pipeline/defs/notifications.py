"""Report crashed runs to the webhook."""

import dagster as dg

from lab_pipeline.core.errors import LabError
from lab_pipeline.defs.code_location import named
from lab_pipeline.defs.instructions.assets import LeavesFailed
from lab_pipeline.defs.resources import Lab
from lab_pipeline.reports.notifications import notify


@dg.run_failure_sensor(name=named("crashed_runs"), default_status=dg.DefaultSensorStatus.RUNNING)
def crashed_runs(context: dg.RunFailureSensorContext, lab: Lab) -> dg.SkipReason | None:
    """Send the job, the run and the first line of the error to the webhook when a run crashes, if there is a webhook.

    Runs of other code locations on the same instance are theirs to report. A run in which only leaves failed is no crash: its
    other leaves are done. A leaf that fails repeatedly has its own message.
    """
    failures = context.get_step_failure_events()
    crashes = [failure for failure in failures if not is_of_leaves(failure)]
    if failures and not crashes:
        return dg.SkipReason("only leaves failed")
    reason = failure_reason(crashes[0]) if crashes else context.failure_event.message
    run = context.dagster_run
    try:
        first_line = (reason or "no reason given").strip().split("\n")[0]
        notify(lab.settings, f"Run {run.run_id} of {run.job_name} failed: {first_line}", context.log.warning)
    except LabError as error:
        return dg.SkipReason(str(error))
    return None


def is_of_leaves(failure: dg.DagsterEvent) -> bool:
    """Tell whether a step failed with `LeavesFailed`, so only because leaves failed."""
    error = failure.step_failure_data.error
    return error is not None and error.cls_name == LeavesFailed.__name__


def failure_reason(failure: dg.DagsterEvent) -> str:
    """Return why a step failed: the failure's description for people if there is one, else the root cause's message."""
    for_people = failure.step_failure_data.user_failure_data
    if for_people and for_people.description:
        return for_people.description
    error = failure.step_failure_data.error
    while error and error.cause:
        error = error.cause
    return error.message.strip() if error else "no reason given"
