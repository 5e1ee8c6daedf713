"""Start snapshots, refreshes of leaves and retunes when they are due: the sensors and the schedule.

Ticks are cheap and never parse the taxonomy. They decide from the home's files and the instance's runs, not from a cursor, so
nothing is lost when a daemon is killed. Dagster never starts two runs with the same `run_key`, even if the first one failed;
so each key names the requested work *and* the job's previous run.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from itertools import takewhile
from pathlib import Path
from typing import Any

import dagster as dg

from lab_pipeline.config.settings import Settings
from lab_pipeline.config.teachers import EndpointTeacherSettings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import digest, read_json, write_json
from lab_pipeline.defs.code_location import SETTINGS, asset_key, named
from lab_pipeline.defs.jobs import refresh_leaves, retune, snapshot_taxonomy
from lab_pipeline.defs.partitions import LEAVES_NAME, leaf_of, ranges
from lab_pipeline.defs.private_dagster import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    BACKFILL_ID_TAG,
    MAX_RETRIES_TAG,
    RUN_KEY_TAG,
    BulkActionsFilter,
    BulkActionStatus,
    InstigatorStatus,
    InstigatorType,
)
from lab_pipeline.defs.resources import Lab
from lab_pipeline.flows.choose import passage_budgets
from lab_pipeline.instructions.plan import Backlog, backlog, plan_leaves
from lab_pipeline.reports.status import HomeStatus
from lab_pipeline.taxonomy.snapshot import current_snapshot
from lab_pipeline.taxonomy.source import taxonomy_state
from lab_pipeline.teacher.choose import teacher_identities

WANTS_TAG = "lab/wants"
"""Run tag: hash of the requested work. Runs with the same value are attempts at the same work."""

CURATED, CATALOG, CHAMPION = map(asset_key, ("curated_instructions", "instruction_catalog", "champion_model"))

_UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.SUSPENDED,
    dg.DagsterRunStatus.CANCELING,
]
"""Statuses of an unfinished run. "Not started" is left out: a run has it for a moment only, or for ever if its process was
killed just then."""

_LONGEST_WAIT_SECONDS = 3600
_RUNS_PER_TICK = 25
_BACKFILLS_PER_TICK = 25


def unlimited_costs(settings: Settings) -> bool:
    """Tell whether refreshing leaves may cost money without a limit: teacher or judge needs a key, and no budget is set."""
    keys = [model.api_key_env for model in (settings.teacher, settings.judge) if isinstance(model, EndpointTeacherSettings)]
    return any(keys) and not any(limit is not None for _, limit in settings.budgets)


def _skips_on_lab_error(tick: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a tick so that, instead of raising a LabError, it returns a SkipReason with the error's message."""

    @wraps(tick)
    def skipping_tick(*arguments: Any, **named: Any) -> Any:
        try:
            return tick(*arguments, **named)
        except LabError as error:
            return dg.SkipReason(str(error))

    return skipping_tick


@dg.sensor(
    name=named("taxonomy_changes"),
    job=snapshot_taxonomy,
    minimum_interval_seconds=SETTINGS.sensors.interval_seconds,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Takes a snapshot when the taxonomy's files or commit changed. While leaves are quarantined, it also takes one "
    "every hour, because their documents may be available again.",
)
@_skips_on_lab_error
def taxonomy_changes(context: dg.SensorEvaluationContext, lab: Lab) -> dg.RunRequest | dg.SkipReason:
    home, settings = lab.home, lab.settings
    state = taxonomy_state(home, settings, passage_budgets(home, settings).id)
    if run := _unfinished(context.instance, snapshot_taxonomy.name):
        return dg.SkipReason(f"run {run.run_id} is taking a snapshot already")
    if home.current_snapshot.exists():
        snapshot = current_snapshot(home)
        quarantined = len(snapshot.rows) - len(snapshot.usable)
        age = time.time() - datetime.fromisoformat(snapshot.taken_at).timestamp()
        fresh = 0 <= age <= _LONGEST_WAIT_SECONDS  # not if the clock was set back
        if snapshot.state == state and (fresh or not quarantined):
            return dg.SkipReason(f"the taxonomy has not changed since snapshot {snapshot.id} of {snapshot.taken_at}")
    wants = digest(["snapshot", state])
    if wait := _wait_after_crashes(context.instance, snapshot_taxonomy.name, wants, settings.sensors.retry_seconds):
        return dg.SkipReason(f"the last snapshot failed; next attempt in {wait:.0f} s")
    return dg.RunRequest(_run_key(context.instance, snapshot_taxonomy.name, wants), tags=_tags(wants))


@dg.sensor(
    name=named("stale_leaves"),
    job=refresh_leaves,
    minimum_interval_seconds=SETTINGS.sensors.interval_seconds,
    default_status=dg.DefaultSensorStatus.STOPPED if unlimited_costs(SETTINGS) else dg.DefaultSensorStatus.RUNNING,
    description="Refreshes stale leaves: those whose taxonomy folder, flow, teacher or judge changed. A leaf that fails is "
    "tried again with growing waits; after several failures it needs a person's attention. Off by default if a model needs a "
    "key and no budget is set.",
)
@_skips_on_lab_error
def stale_leaves(context: dg.SensorEvaluationContext, lab: Lab) -> list[dg.RunRequest] | dg.SkipReason:
    requests, _, state = _refreshes(context.instance, lab)
    if run := _unfinished(context.instance, refresh_leaves.name):
        return dg.SkipReason(f"run {run.run_id} is refreshing leaves; {state}")
    return requests or dg.SkipReason(state)


def _refreshes(instance: dg.DagsterInstance, lab: Lab) -> tuple[list[dg.RunRequest], Backlog, str]:
    """Return the run requests for stale leaves that are due, the backlog, and its state in words.

    At most `_RUNS_PER_TICK` ranges of leaves are looked at. A range whose runs crashed is requested only after its wait.
    """
    home, settings, job = lab.home, lab.settings, refresh_leaves.name
    plans = plan_leaves(home, current_snapshot(home), settings, *teacher_identities(settings))
    stale = backlog(home, plans, settings.sensors, datetime.now(UTC))
    requests, waits = [], []
    order = instance.get_dynamic_partitions(LEAVES_NAME) if stale.due else []
    for first, last in ranges(instance, stale.due)[:_RUNS_PER_TICK]:
        keys = order[order.index(first) : order.index(last) + 1]
        wants = digest([[key, plans[leaf_of(key)].curated] for key in keys])
        if wait := _wait_after_crashes(instance, job, wants, settings.sensors.retry_seconds):
            waits.append(wait)
        else:
            requests.append(_refresh_request(first, last, _run_key(instance, job, wants), _tags(wants)))
    crashed = f"; the last run was killed, next attempt in {min(waits):.0f} s" if waits else ""
    return requests, stale, f"{stale}{crashed}"


def _refresh_request(first: str, last: str, run_key: str, tags: dict[str, str]) -> dg.RunRequest:
    if first == last:
        return dg.RunRequest(run_key, partition_key=first, tags=tags)
    return dg.RunRequest(run_key, tags={**tags, ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last})


@dg.schedule(
    job=retune,
    name=named("nightly_retune"),
    cron_schedule=SETTINGS.schedule.cron,
    execution_timezone=SETTINGS.schedule.timezone,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Retunes if data, recipe, base model, seed or gate policy changed since the last evaluated candidate. While "
    "leaves are being refreshed, the retune waits, and the sensor waiting_retunes starts it later.",
)
@_skips_on_lab_error
def nightly_retune(context: dg.ScheduleEvaluationContext, lab: Lab) -> dg.RunRequest | dg.SkipReason:
    home, night = lab.home, context.scheduled_execution_time.isoformat()
    if reason := _reason_to_wait(context.instance, lab):
        write_json(_due(home), {"night": night})
        return dg.SkipReason(f"the retune waits: {reason}")
    return _retune_if_changed(lab, f"night:{night}")


@dg.sensor(
    name=named("waiting_retunes"),
    job=retune,
    minimum_interval_seconds=SETTINGS.sensors.interval_seconds,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts a nightly retune that had to wait for leaves. Also starts the retune of a 'Materialize all' that "
    "Dagster stopped because leaves failed: their last good rows are used.",
)
@_skips_on_lab_error
def waiting_retunes(context: dg.SensorEvaluationContext, lab: Lab) -> dg.RunRequest | dg.SkipReason:
    instance, home = context.instance, lab.home
    if backfill := _backfill_without_retune(instance):
        return dg.RunRequest(f"backfill:{backfill}")
    if not _due(home).exists():
        return dg.SkipReason("no retune is waiting")
    run_key = f"night:{read_json(_due(home))['night']}"
    if _was_launched(instance, run_key):
        _due(home).unlink()
        return dg.SkipReason("the waiting retune was started")
    if reason := _reason_to_wait(instance, lab):
        return dg.SkipReason(f"the retune waits: {reason}")
    decision = _retune_if_changed(lab, run_key)
    if isinstance(decision, dg.SkipReason):
        _due(home).unlink()
    return decision


def _retune_if_changed(lab: Lab, run_key: str) -> dg.RunRequest | dg.SkipReason:
    status = HomeStatus.of(lab.home, lab.settings)
    if not status.trainable:
        return dg.SkipReason("no leaf has a row to train on")
    if status.unchanged:
        return dg.SkipReason("nothing changed since the last evaluated candidate")
    return dg.RunRequest(run_key)


def _reason_to_wait(instance: dg.DagsterInstance, lab: Lab) -> str | None:
    """Return why a retune should not start now, None if it may.

    Either another run works on the home, or the sensor is on and leaves are about to be refreshed or tried again.
    """
    for job in (retune.name, refresh_leaves.name, snapshot_taxonomy.name):
        if run := _unfinished(instance, job):
            return f"run {run.run_id} of {job} is not finished"
    requests, stale, state = _refreshes(instance, lab)
    # Do not wait for leaves whose run is killed again and again: they would hold up the model for ever.
    if (requests or stale.waiting) and _is_on(instance, stale_leaves):
        return state
    return None


def _due(home: Home) -> Path:
    """Return the path of the file that remembers a nightly retune that had to wait."""
    return home.root / "retune-due.json"


def _backfill_without_retune(instance: dg.DagsterInstance) -> str | None:
    """Return the id of this lab's last failed backfill if it should have retuned, but stopped before the catalog; else None.

    Such a backfill includes leaves and the champion, and `waiting_retunes` has not started a retune for it yet. Dagster runs
    nothing downstream of a failed partition. Here the retune can go on: it uses a failed leaf's last good rows.
    """
    failed = BulkActionsFilter(statuses=[BulkActionStatus.COMPLETED_FAILED])
    for backfill in instance.get_backfills(filters=failed, limit=_BACKFILLS_PER_TICK):
        selected = set(backfill.asset_selection or [])
        if not {CHAMPION, CURATED} & selected:
            continue  # another lab's
        if not {CHAMPION, CURATED} <= selected:
            return None
        runs = instance.get_runs(dg.RunsFilter(tags={BACKFILL_ID_TAG: backfill.backfill_id}))
        reached_catalog = any(run.asset_selection and CATALOG in run.asset_selection for run in runs)
        return None if reached_catalog or _was_launched(instance, f"backfill:{backfill.backfill_id}") else backfill.backfill_id
    return None


def _was_launched(instance: dg.DagsterInstance, run_key: str) -> bool:
    return bool(instance.get_runs(dg.RunsFilter(job_name=retune.name, tags={RUN_KEY_TAG: run_key}), limit=1))


def _unfinished(instance: dg.DagsterInstance, job: str) -> dg.DagsterRun | None:
    return next(iter(instance.get_runs(dg.RunsFilter(job_name=job, statuses=_UNDER_WAY), limit=1)), None)


def _is_on(instance: dg.DagsterInstance, sensor: dg.SensorDefinition) -> bool:
    """Tell whether a sensor is on: as a person switched it, or else by its default status."""
    for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
        if state.name == sensor.name and state.status != InstigatorStatus.DECLARED_IN_CODE:
            return state.status == InstigatorStatus.RUNNING
    return sensor.default_status == dg.DefaultSensorStatus.RUNNING


def _run_key(instance: dg.DagsterInstance, job: str, wants: str) -> str:
    last = instance.get_runs(dg.RunsFilter(job_name=job), limit=1)
    return f"{wants}:after-{last[0].run_id if last else 'none'}"


def _tags(wants: str) -> dict[str, str]:
    return {WANTS_TAG: wants, MAX_RETRIES_TAG: "0"}  # the sensor requests a new attempt itself


def _wait_after_crashes(instance: dg.DagsterInstance, job: str, wants: str, retry_seconds: int) -> float:
    """Return the seconds until the work with the tag `wants` may be tried again after crashes of its runs, 0 if it may be now.

    The first crash causes no wait, the second one of `retry_seconds`. Each further crash doubles it, up to an hour.
    """
    attempts = instance.get_run_records(dg.RunsFilter(job_name=job, tags={WANTS_TAG: wants}), limit=10)
    crashed = list(takewhile(lambda record: record.dagster_run.status != dg.DagsterRunStatus.SUCCESS, attempts))
    if len(crashed) < 2:
        return 0
    passed = time.time() - (crashed[0].end_time or 0)
    wait = min(retry_seconds * 2 ** (len(crashed) - 2), _LONGEST_WAIT_SECONDS)
    return wait - passed if 0 <= passed < wait else 0  # a clock that was set back makes nothing wait
