"""What runs by itself: leaves are kept in step with the taxonomy, and the model with the leaves, night by night.

Ticks are cheap and never parse the taxonomy. What they decide comes from the home's files and the instance's runs, not from
a cursor, so nothing is lost when a daemon is killed. Dagster suppresses a `run_key` for ever, failed runs included; so every
key names what is asked for *and* the run that came before.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from itertools import takewhile
from pathlib import Path
from typing import Any

import dagster as dg

from lab_pipeline.config.settings import (
    EndpointTeacherSettings,
    ScheduleSettings,
    SensorSettings,
    Settings,
    SettingsError,
    load_settings,
)
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home, default_home
from lab_pipeline.core.storage import digest, read_json, write_json
from lab_pipeline.defs.jobs import refresh_leaves, retune, snapshot_taxonomy
from lab_pipeline.defs.partitions import leaf_of, ranges
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
from lab_pipeline.instructions.plan import Backlog, backlog, plan_leaves
from lab_pipeline.reports.status import HomeStatus
from lab_pipeline.taxonomy.snapshot import current_snapshot
from lab_pipeline.taxonomy.source import taxonomy_state
from lab_pipeline.teacher.choose import teacher_identities

WANTS_TAG = "lab/wants"
"""Tag of a run with the hash of what it was launched for; runs of equal tags are tries of the same work."""

CURATED, CATALOG, CHAMPION = map(dg.AssetKey, ("curated_instructions", "instruction_catalog", "champion_model"))

_UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.SUSPENDED,
    dg.DagsterRunStatus.CANCELING,
]
"""A run stays "not started" for a moment only, or for ever if its process was killed just then: nothing waits for it."""

_LONGEST_WAIT_SECONDS = 3600
_RUNS_AT_A_TICK = 25


def _home_settings() -> Settings | None:
    """The home's settings as they are when the definitions load; None where there are none yet, or wrong ones."""
    try:
        return load_settings(default_home() / "settings.yaml")
    except SettingsError:
        return None


def unlimited_costs(settings: Settings) -> bool:
    """Whether refreshing leaves may cost money, as much as it may: a model wants a key, and no budget is set."""
    keys = [model.api_key_env for model in (settings.teacher, settings.judge) if isinstance(model, EndpointTeacherSettings)]
    return any(keys) and settings.budgets.teacher_calls is None


_settings = _home_settings()
_sensors = _settings.sensors if _settings else SensorSettings()
_schedule = _settings.schedule if _settings else ScheduleSettings()


def _skips_on_lab_error(tick: Callable[..., Any]) -> Callable[..., Any]:
    """A tick that says what a person can mend as the reason to skip, and looks again next time."""

    @wraps(tick)
    def skipping_tick(*arguments: Any, **named: Any) -> Any:
        try:
            return tick(*arguments, **named)
        except LabError as error:
            return dg.SkipReason(str(error))

    return skipping_tick


@dg.sensor(
    job=snapshot_taxonomy,
    minimum_interval_seconds=_sensors.interval_seconds,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Takes a snapshot when the taxonomy's files or commit changed, and hourly while leaves are quarantined, for "
    "their documents may have come back.",
)
@_skips_on_lab_error
def taxonomy_changes(context: dg.SensorEvaluationContext, lab: Lab) -> dg.RunRequest | dg.SkipReason:
    home, settings = lab.home, lab.settings
    state = taxonomy_state(home, settings)
    if run := _unfinished(context.instance, snapshot_taxonomy.name):
        return dg.SkipReason(f"run {run.run_id} takes a snapshot already")
    if home.current_snapshot.exists():
        snapshot = current_snapshot(home)
        quarantined = len(snapshot.rows) - len(snapshot.usable)
        age = time.time() - datetime.fromisoformat(snapshot.taken_at).timestamp()
        fresh = 0 <= age <= _LONGEST_WAIT_SECONDS  # not if the clock was set back
        if snapshot.state == state and (fresh or not quarantined):
            return dg.SkipReason(f"the taxonomy is as in snapshot {snapshot.id} of {snapshot.taken_at}")
    wants = digest(["snapshot", state])
    if wait := _wait_after_crashes(context.instance, snapshot_taxonomy.name, wants, settings.sensors.retry_seconds):
        return dg.SkipReason(f"the last snapshot failed; tried again in {wait:.0f} s")
    return dg.RunRequest(_run_key(context.instance, snapshot_taxonomy.name, wants), tags=_tags(wants))


@dg.sensor(
    job=refresh_leaves,
    minimum_interval_seconds=_sensors.interval_seconds,
    default_status=dg.DefaultSensorStatus.STOPPED
    if _settings and unlimited_costs(_settings)
    else dg.DefaultSensorStatus.RUNNING,
    description="Refreshes the leaves that are behind their taxonomy folder, flow, teacher or judge. A leaf that fails is "
    "tried again with back-off, then left to a person. Off by default if a model wants a key and no budget is set.",
)
@_skips_on_lab_error
def stale_leaves(context: dg.SensorEvaluationContext, lab: Lab) -> list[dg.RunRequest] | dg.SkipReason:
    requests, _, said = _refreshes(context.instance, lab)
    if run := _unfinished(context.instance, refresh_leaves.name):
        return dg.SkipReason(f"run {run.run_id} is refreshing leaves; {said}")
    return requests or dg.SkipReason(said)


def _refreshes(instance: dg.DagsterInstance, lab: Lab) -> tuple[list[dg.RunRequest], Backlog, str]:
    """What to run now for the leaves that are behind, and how they stand."""
    home, settings, job = lab.home, lab.settings, refresh_leaves.name
    plans = plan_leaves(home, current_snapshot(home), settings, *teacher_identities(settings))
    behind = backlog(home, plans, settings.sensors, datetime.now(UTC))
    requests, waits = [], []
    order = instance.get_dynamic_partitions("leaves") if behind.due else []
    for first, last in ranges(instance, behind.due)[:_RUNS_AT_A_TICK]:
        keys = order[order.index(first) : order.index(last) + 1]
        wants = digest([[key, plans[leaf_of(key)].curated] for key in keys])
        if wait := _wait_after_crashes(instance, job, wants, settings.sensors.retry_seconds):
            waits.append(wait)
        else:
            requests.append(_refresh_request(first, last, _run_key(instance, job, wants), _tags(wants)))
    cut_off = f"; the run was cut off, tried again in {min(waits):.0f} s" if waits else ""
    return requests, behind, f"{behind}{cut_off}"


def _refresh_request(first: str, last: str, run_key: str, tags: dict[str, str]) -> dg.RunRequest:
    if first == last:
        return dg.RunRequest(run_key, partition_key=first, tags=tags)
    return dg.RunRequest(run_key, tags={**tags, ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last})


@dg.schedule(
    job=retune,
    name="nightly_retune",
    cron_schedule=_schedule.cron,
    execution_timezone=_schedule.timezone,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Retunes if anything changed since the last evaluated candidate: data, recipe, base model, seed, gate policy. "
    "While leaves are being refreshed it waits: the sensor waiting_retunes then starts the run.",
)
@_skips_on_lab_error
def nightly_retune(context: dg.ScheduleEvaluationContext, lab: Lab) -> dg.RunRequest | dg.SkipReason:
    home, night = lab.home, context.scheduled_execution_time.isoformat()
    if reason := _must_wait(context.instance, lab):
        write_json(_due(home), {"night": night})
        return dg.SkipReason(f"the retune waits: {reason}")
    return _retune_if_changed(lab, f"night:{night}")


@dg.sensor(
    job=retune,
    minimum_interval_seconds=_sensors.interval_seconds,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts the nightly retune that had to wait, and the tail of a 'Materialize all' whose failed leaves made "
    "Dagster stop before it.",
)
@_skips_on_lab_error
def waiting_retunes(context: dg.SensorEvaluationContext, lab: Lab) -> dg.RunRequest | dg.SkipReason:
    instance, home = context.instance, lab.home
    if backfill := _backfill_without_tail(instance):
        return dg.RunRequest(f"backfill:{backfill}")
    if not _due(home).exists():
        return dg.SkipReason("no retune is waiting")
    run_key = f"night:{read_json(_due(home))['night']}"
    if _was_launched(instance, run_key):
        _due(home).unlink()
        return dg.SkipReason("the retune that waited was started")
    if reason := _must_wait(instance, lab):
        return dg.SkipReason(f"the retune waits: {reason}")
    asked = _retune_if_changed(lab, run_key)
    if isinstance(asked, dg.SkipReason):
        _due(home).unlink()
    return asked


def _retune_if_changed(lab: Lab, run_key: str) -> dg.RunRequest | dg.SkipReason:
    standing = HomeStatus.of(lab.home, lab.settings)
    if not standing.trainable:
        return dg.SkipReason("no leaf has a row to train on")
    if standing.unchanged:
        return dg.SkipReason("nothing changed since the last evaluated candidate")
    return dg.RunRequest(run_key)


def _must_wait(instance: dg.DagsterInstance, lab: Lab) -> str | None:
    """Why a retune should not start now: it would miss what is about to be ready, or get into another's way."""
    for job in (retune.name, refresh_leaves.name, snapshot_taxonomy.name):
        if run := _unfinished(instance, job):
            return f"run {run.run_id} of {job} is not finished"
    requests, behind, said = _refreshes(instance, lab)
    # Not for leaves whose run is killed again and again: no leaf keeps the model waiting for ever.
    if (requests or behind.waiting) and _is_on(instance, stale_leaves):
        return said
    return None


def _due(home: Home) -> Path:
    """Says that a nightly retune had to wait."""
    return home.root / "retune-due.json"


def _backfill_without_tail(instance: dg.DagsterInstance) -> str | None:
    """The last backfill, if it was to reach the champion but stopped before the catalog because leaves failed.

    Dagster runs nothing behind a failed partition. Here the catalog is made for that: a failed leaf's last good rows are used.
    """
    for backfill in instance.get_backfills(filters=BulkActionsFilter(statuses=[BulkActionStatus.COMPLETED_FAILED]), limit=1):
        wanted = set(backfill.asset_selection or [])
        if not {CHAMPION, CURATED} <= wanted:
            return None
        runs = instance.get_runs(dg.RunsFilter(tags={BACKFILL_ID_TAG: backfill.backfill_id}))
        reached = any(run.asset_selection and CATALOG in run.asset_selection for run in runs)
        return None if reached or _was_launched(instance, f"backfill:{backfill.backfill_id}") else backfill.backfill_id
    return None


def _was_launched(instance: dg.DagsterInstance, run_key: str) -> bool:
    return bool(instance.get_runs(dg.RunsFilter(tags={RUN_KEY_TAG: run_key}), limit=1))


def _unfinished(instance: dg.DagsterInstance, job: str) -> dg.DagsterRun | None:
    return next(iter(instance.get_runs(dg.RunsFilter(job_name=job, statuses=_UNDER_WAY), limit=1)), None)


def _is_on(instance: dg.DagsterInstance, sensor: dg.SensorDefinition) -> bool:
    """Whether a person, else the definition, lets the sensor run."""
    for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
        if state.name == sensor.name and state.status != InstigatorStatus.DECLARED_IN_CODE:
            return state.status == InstigatorStatus.RUNNING
    return sensor.default_status == dg.DefaultSensorStatus.RUNNING


def _run_key(instance: dg.DagsterInstance, job: str, wants: str) -> str:
    last = instance.get_runs(dg.RunsFilter(job_name=job), limit=1)
    return f"{wants}:after-{last[0].run_id if last else 'none'}"


def _tags(wants: str) -> dict[str, str]:
    return {WANTS_TAG: wants, MAX_RETRIES_TAG: "0"}  # the sensor itself tries again


def _wait_after_crashes(instance: dg.DagsterInstance, job: str, wants: str, retry_seconds: int) -> float:
    """Seconds until the same work may be tried again: at once after one crash, then with doubled waits."""
    tries = instance.get_run_records(dg.RunsFilter(job_name=job, tags={WANTS_TAG: wants}), limit=10)
    crashed = list(takewhile(lambda record: record.dagster_run.status != dg.DagsterRunStatus.SUCCESS, tries))
    if len(crashed) < 2:
        return 0
    since = time.time() - (crashed[0].end_time or 0)
    wait = min(retry_seconds * 2 ** (len(crashed) - 2), _LONGEST_WAIT_SECONDS)
    return wait - since if 0 <= since < wait else 0
