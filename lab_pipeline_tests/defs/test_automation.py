"""Every decision of the sensors and the schedule, without a daemon."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import dagster as dg
import pytest
import yaml
from dagster._core.execution.backfill import PartitionBackfill
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteInstigatorOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import InstigatorState, SensorInstigatorData

from lab_pipeline.config.settings import Settings, load_settings
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import write_json
from lab_pipeline.defs import automation
from lab_pipeline.defs.automation import (
    CATALOG,
    CHAMPION,
    CURATED,
    WANTS_TAG,
    nightly_retune,
    stale_leaves,
    taxonomy_changes,
    unlimited_costs,
    waiting_retunes,
)
from lab_pipeline.defs.partitions import register
from lab_pipeline.defs.private_dagster import BACKFILL_ID_TAG, RUN_KEY_TAG, BulkActionStatus, InstigatorStatus, InstigatorType
from lab_pipeline.defs.resources import Lab
from lab_pipeline.flows.choose import passage_budgets
from lab_pipeline.instructions.plan import plan_leaves
from lab_pipeline.instructions.refresh import refresh_leaves
from lab_pipeline.reports.status import HomeStatus
from lab_pipeline.taxonomy.leaf import Kind
from lab_pipeline.taxonomy.snapshot import current_snapshot, take_snapshot
from lab_pipeline.teacher.choose import teacher_identities
from lab_pipeline_tests.builders import FOUNDATIONAL, FREEFORM, GROUNDED, KNOWLEDGE, edit_yaml, write_taxonomy
from lab_pipeline_tests.scripted_teacher import ScriptedTeacher

ORDER = [GROUNDED, FREEFORM, FOUNDATIONAL, KNOWLEDGE]
"""In which the leaves became partitions."""
ENDPOINT = {"kind": "endpoint", "url": "http://127.0.0.1:9", "model": "none"}


@dataclass
class Ticking:
    """A home, an instance and a clock; the teacher is never asked by a tick."""

    home: Home
    instance: dg.DagsterInstance
    patch: pytest.MonkeyPatch

    @property
    def taxonomy(self) -> Path:
        return self.home.root.parent / "taxonomy"

    def set(self, **settings: Any) -> None:
        values = yaml.safe_load(self.home.settings_file.read_text())
        self.home.settings_file.write_text(yaml.safe_dump({**values, **settings}))

    def edit(self, leaf: str) -> None:
        edit_yaml(self.taxonomy / leaf / "qna.yaml", lambda value: value.update(task_description=f"{value} reworded"))

    def snapshot(self) -> None:
        settings = load_settings(self.home.settings_file)
        snapshot = take_snapshot(self.home, settings, budgets=passage_budgets(self.home, settings))
        register(self.instance, list(snapshot.usable))

    def refresh(self, *leaves: str, teacher: ScriptedTeacher | None = None) -> None:
        settings = load_settings(self.home.settings_file)
        plans = plan_leaves(self.home, current_snapshot(self.home), settings, *teacher_identities(settings))
        wanted = [plan for leaf, plan in plans.items() if not leaves or leaf in leaves]
        teacher = teacher or ScriptedTeacher()
        refresh_leaves(self.home, wanted, settings, teacher, teacher, "c", lambda text: None, lambda outcome: None)

    def fail(self, *leaves: str) -> None:
        self.refresh(*leaves, teacher=ScriptedTeacher(script=lambda request: 1 / 0))

    def sensor(self, sensor: dg.SensorDefinition) -> Any:
        return sensor(dg.build_sensor_context(self.instance, resources={"lab": self.lab}))

    def night(self, day: int = 1) -> Any:
        at = datetime(2030, 1, day, 2, tzinfo=UTC)
        context = dg.build_schedule_context(self.instance, scheduled_execution_time=at, resources={"lab": self.lab})
        return nightly_retune(context)

    @property
    def lab(self) -> Lab:
        return Lab(root=str(self.home.root))

    def created(self, job: str, assets: list[dg.AssetKey] | None = None, **tags: str) -> dg.DagsterRun:
        selection = frozenset(assets) if assets else None
        return self.instance.run_storage.add_run(dg.DagsterRun(job, tags=tags, asset_selection=selection))

    def launched(self, job: str, request: dg.RunRequest | None = None, **tags: str) -> dg.DagsterRun:
        """A run under way, as the daemon would have launched it."""
        if request:
            tags = {**request.tags, RUN_KEY_TAG: request.run_key, **tags}
        run = self.created(job, **tags)
        self._happens(run, dg.DagsterEventType.PIPELINE_START)
        return run

    def ended(self, run: dg.DagsterRun, well: bool = True) -> None:
        self._happens(run, dg.DagsterEventType.PIPELINE_SUCCESS if well else dg.DagsterEventType.PIPELINE_FAILURE)

    def _happens(self, run: dg.DagsterRun, kind: dg.DagsterEventType) -> None:
        self.instance.report_dagster_event(dg.DagsterEvent(kind.value, run.job_name), run_id=run.run_id)

    def switch(self, sensor: str, status: InstigatorStatus) -> None:
        """What the instance holds of a sensor once a person, or the daemon by itself, has turned it on or off."""
        repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("lab_pipeline"), "__repository__")
        self.instance.add_instigator_state(
            InstigatorState(RemoteInstigatorOrigin(repository, sensor), InstigatorType.SENSOR, status, SensorInstigatorData())
        )

    def later(self, seconds: float) -> None:
        """Let that time pass, or go back, for the ticks."""
        now = datetime.now(UTC) + timedelta(seconds=seconds)
        clock = SimpleNamespace(now=lambda zone: now, fromisoformat=datetime.fromisoformat)
        self.patch.setattr(automation, "time", SimpleNamespace(time=now.timestamp))
        self.patch.setattr(automation, "datetime", clock)


@pytest.fixture(scope="module")
def instance():
    with dg.instance_for_test() as made:
        yield made


@pytest.fixture
def fresh(tmp_path, instance, monkeypatch):
    """A home that was never used."""
    write_taxonomy(tmp_path / "taxonomy")
    home = Home.open(tmp_path / "home")
    flows = {kind: f"simple_{kind}" for kind in get_args(Kind)}
    home.settings_file.write_text(yaml.safe_dump({"taxonomy": {"path": "../taxonomy"}, "teacher": ENDPOINT, "flows": flows}))
    yield Ticking(home, instance, monkeypatch)
    instance.wipe()
    instance.wipe_all_schedules()


@pytest.fixture
def ticking(fresh):
    """A home after its first snapshot, its leaves not refreshed yet."""
    fresh.snapshot()
    return fresh


@pytest.fixture
def filled(ticking):
    """A home whose leaves are all current, and never were in a model."""
    ticking.refresh()
    return ticking


def reason(tick: Any) -> str:
    assert isinstance(tick, dg.SkipReason), tick
    return tick.skip_message


def spans(requests: list[dg.RunRequest]) -> list[tuple[str, str]]:
    """First and last leaf that each request is for."""
    return [
        (each.partition_key, each.partition_key)
        if each.partition_key
        else (each.tags["dagster/asset_partition_range_start"], each.tags["dagster/asset_partition_range_end"])
        for each in requests
    ]


# --- taxonomy_changes


def test_a_snapshot_is_asked_for_first_and_after_each_change_and_not_otherwise(fresh):
    assert isinstance(fresh.sensor(taxonomy_changes), dg.RunRequest)
    fresh.snapshot()
    assert f"not changed since snapshot {current_snapshot(fresh.home).id}" in reason(fresh.sensor(taxonomy_changes))
    fresh.edit(FREEFORM)
    assert isinstance(fresh.sensor(taxonomy_changes), dg.RunRequest)


def test_a_snapshot_under_way_is_waited_for_and_one_killed_before_it_started_is_not(fresh):
    fresh.created("snapshot_taxonomy")
    run = fresh.launched("snapshot_taxonomy", fresh.sensor(taxonomy_changes))
    assert reason(fresh.sensor(taxonomy_changes)) == f"run {run.run_id} is taking a snapshot already"


def test_a_taxonomy_that_goes_from_a_to_b_and_back_is_asked_for_under_a_new_key_each_time(ticking):
    qna = ticking.taxonomy / FREEFORM / "qna.yaml"
    first, at = qna.read_bytes(), qna.stat().st_mtime_ns
    requests = []
    for content in (b"{}", first, b"{}", first):
        qna.write_bytes(content)
        os.utime(qna, ns=(at, at))  # so that the very same state comes back
        requests.append(ticking.sensor(taxonomy_changes))
        ticking.ended(ticking.launched("snapshot_taxonomy", requests[-1]))
        ticking.snapshot()
    assert len({request.tags[WANTS_TAG] for request in requests}) == 2
    assert len({request.run_key for request in requests}) == 4


def test_a_snapshot_that_fails_is_tried_again_at_once_and_then_with_doubled_waits(fresh):
    fresh.set(sensors={"retry_seconds": 100})
    keys = set()
    for seconds in (0, 0, 100, 200):
        if seconds:
            fresh.later(seconds - 10)
            assert reason(fresh.sensor(taxonomy_changes)).startswith("the last snapshot failed; next attempt in ")
            fresh.later(seconds + 10)
        request = fresh.sensor(taxonomy_changes)
        keys.add(request.run_key)
        fresh.ended(fresh.launched("snapshot_taxonomy", request), well=False)
    assert len(keys) == 4
    fresh.edit(FREEFORM)
    fresh.later(0)
    assert isinstance(fresh.sensor(taxonomy_changes), dg.RunRequest), "another state is other work"


def test_quarantined_leaves_are_looked_at_hourly_even_after_the_clock_was_set_back(ticking):
    (ticking.taxonomy / FREEFORM / "qna.yaml").write_text("{}")
    ticking.snapshot()
    for seconds, due in ((0, False), (3500, False), (3700, True), (-3700, True)):
        ticking.later(seconds)
        assert isinstance(ticking.sensor(taxonomy_changes), dg.RunRequest) == due, seconds


def test_without_quarantined_leaves_no_time_makes_a_snapshot_old(ticking):
    for seconds in (1_000_000, -1_000_000):
        ticking.later(seconds)
        assert "not changed since snapshot" in reason(ticking.sensor(taxonomy_changes))


def test_a_taxonomy_out_of_reach_is_the_reason_to_skip(ticking):
    ticking.taxonomy.rename(ticking.taxonomy.with_name("elsewhere"))
    assert "no such folder; check taxonomy.path" in reason(ticking.sensor(taxonomy_changes))
    ticking.set(taxonomy={"path": str(ticking.taxonomy), "ref": "main"})
    assert "cannot be reached" in reason(ticking.sensor(taxonomy_changes))


# --- stale_leaves


def test_leaves_that_are_behind_are_asked_for_as_the_fewest_ranges(ticking):
    assert spans(ticking.sensor(stale_leaves)) == [(ORDER[0], ORDER[-1])]
    ticking.refresh(FREEFORM)
    assert spans(ticking.sensor(stale_leaves)) == [(GROUNDED, GROUNDED), (FOUNDATIONAL, KNOWLEDGE)]
    ticking.refresh()
    assert reason(ticking.sensor(stale_leaves)) == "all leaves are current"
    ticking.edit(GROUNDED)
    assert reason(ticking.sensor(stale_leaves)) == "all leaves are current", "as the last snapshot found them"
    ticking.snapshot()
    assert spans(ticking.sensor(stale_leaves)) == [(GROUNDED, GROUNDED)]


def test_before_the_first_snapshot_and_while_leaves_are_refreshed_nothing_is_asked_for(fresh):
    assert "no taxonomy snapshot yet" in reason(fresh.sensor(stale_leaves))
    fresh.snapshot()
    run = fresh.launched("refresh_leaves")
    assert reason(fresh.sensor(stale_leaves)) == f"run {run.run_id} is refreshing leaves; 4 to refresh"


def test_a_refresh_that_is_killed_is_tried_again_at_once_and_then_with_doubled_waits(ticking):
    ticking.set(sensors={"retry_seconds": 100})
    keys = set()
    for seconds in (0, 0, 100, 200):
        if seconds:
            ticking.later(seconds - 10)
            assert reason(ticking.sensor(stale_leaves)).startswith("4 to refresh; the last run was killed, next attempt in ")
            ticking.later(seconds + 10)
        (request,) = ticking.sensor(stale_leaves)
        keys.add(request.run_key)
        ticking.ended(ticking.launched("refresh_leaves", request), well=False)
    assert len(keys) == 4


def test_a_leaf_that_fails_waits_longer_each_time_and_is_then_left_to_a_person(filled):
    filled.set(sensors={"retry_seconds": 100, "attempts": 3})
    filled.edit(FREEFORM)
    filled.snapshot()
    for wait in (100, 200):
        filled.fail(FREEFORM)
        filled.later(wait - 10)
        assert reason(filled.sensor(stale_leaves)).startswith(f"{FREEFORM}: failed, tried again in ")
        filled.later(wait + 10)
        assert spans(filled.sensor(stale_leaves)) == [(FREEFORM, FREEFORM)]
        filled.later(-10_000)
        assert spans(filled.sensor(stale_leaves)) == [(FREEFORM, FREEFORM)], "the clock was set back"
    filled.fail(FREEFORM)
    filled.later(1_000_000)
    assert reason(filled.sensor(stale_leaves)) == f"{FREEFORM}: needs attention: ZeroDivisionError: division by zero"
    filled.edit(FREEFORM)
    filled.snapshot()
    assert spans(filled.sensor(stale_leaves)) == [(FREEFORM, FREEFORM)], "an edit is new work"


def test_a_leaf_that_fails_keeps_no_other_waiting(ticking):
    ticking.fail(FREEFORM)
    assert spans(ticking.sensor(stale_leaves)) == [(GROUNDED, GROUNDED), (FOUNDATIONAL, KNOWLEDGE)]


# --- nightly_retune and waiting_retunes


def test_the_night_retunes_what_changed_and_skips_what_did_not(filled):
    request = filled.night()
    assert request.run_key == "night:2030-01-01T02:00:00+00:00"
    evaluated_last(filled)
    assert reason(filled.night(2)) == "nothing changed since the last evaluated candidate"
    filled.set(gate={"confidence": 0.9})
    assert isinstance(filled.night(3), dg.RunRequest)


def test_a_night_without_a_row_is_no_failure(ticking):
    ticking.switch("stale_leaves", InstigatorStatus.STOPPED)
    assert reason(ticking.night()) == "no leaf has a row to train on"


def test_a_night_before_the_first_snapshot_says_so(fresh):
    assert "no taxonomy snapshot yet" in reason(fresh.night())


def test_a_night_waits_for_leaves_and_the_retune_starts_once_when_they_are_done(filled):
    assert reason(filled.sensor(waiting_retunes)) == "no retune is waiting"
    filled.edit(FREEFORM)
    filled.snapshot()
    assert reason(filled.night()) == "the retune waits: 1 to refresh"
    refresh = filled.launched("refresh_leaves")
    assert reason(filled.sensor(waiting_retunes)) == f"the retune waits: run {refresh.run_id} of refresh_leaves is not finished"
    filled.refresh()
    filled.ended(refresh)
    request = filled.sensor(waiting_retunes)
    assert request.run_key == "night:2030-01-01T02:00:00+00:00"
    filled.launched("retune", request)
    assert reason(filled.sensor(waiting_retunes)) == "the waiting retune was started"
    assert reason(filled.sensor(waiting_retunes)) == "no retune is waiting"


@pytest.mark.parametrize("job", ["retune", "refresh_leaves", "snapshot_taxonomy"])
def test_a_night_waits_for_whatever_works_on_the_home(filled, job):
    filled.created(job)  # killed before it started: nobody waits for it
    assert isinstance(filled.night(), dg.RunRequest)
    run = filled.launched(job)
    assert reason(filled.night(2)) == f"the retune waits: run {run.run_id} of {job} is not finished"


def test_a_retune_that_waited_in_vain_is_forgotten(filled):
    run = filled.launched("retune")
    filled.night()
    evaluated_last(filled)
    filled.ended(run)
    assert reason(filled.sensor(waiting_retunes)) == "nothing changed since the last evaluated candidate"
    assert reason(filled.sensor(waiting_retunes)) == "no retune is waiting"


def test_leaves_that_nobody_refreshes_are_not_waited_for(filled):
    filled.edit(FREEFORM)
    filled.snapshot()
    filled.switch("stale_leaves", InstigatorStatus.STOPPED)
    assert isinstance(filled.night(), dg.RunRequest)


def test_a_sensor_that_is_off_by_definition_now_is_not_waited_for_though_it_once_was_on(filled, monkeypatch):
    filled.edit(FREEFORM)
    filled.snapshot()
    filled.switch("stale_leaves", InstigatorStatus.DECLARED_IN_CODE)
    assert reason(filled.night()) == "the retune waits: 1 to refresh"
    monkeypatch.setattr(stale_leaves, "_default_status", dg.DefaultSensorStatus.STOPPED)
    assert isinstance(filled.night(2), dg.RunRequest)


def test_leaves_left_to_a_person_are_not_waited_for(filled):
    filled.set(sensors={"attempts": 1})
    filled.edit(FREEFORM)
    filled.snapshot()
    filled.fail(FREEFORM)
    assert isinstance(filled.night(), dg.RunRequest)


def test_leaves_whose_run_is_killed_again_and_again_keep_no_night_waiting(filled):
    filled.edit(FREEFORM)
    filled.snapshot()
    for _ in range(2):
        assert reason(filled.night()) == "the retune waits: 1 to refresh"
        (request,) = filled.sensor(stale_leaves)
        filled.ended(filled.launched("refresh_leaves", request), well=False)
    assert isinstance(filled.night(2), dg.RunRequest)


def test_a_materialize_all_that_stopped_at_failed_leaves_gets_its_retune_once(filled):
    filled.instance.add_backfill(failed_backfill("leaves", [CURATED]))
    assert reason(filled.sensor(waiting_retunes)) == "no retune is waiting"
    filled.instance.add_backfill(failed_backfill("stopped", [CURATED, CATALOG, CHAMPION]))
    filled.instance.add_backfill(
        failed_backfill("another lab's", [dg.AssetKey(["acme", key.path[-1]]) for key in (CURATED, CHAMPION)])
    )
    request = filled.sensor(waiting_retunes)
    assert request.run_key == "backfill:stopped"
    filled.ended(filled.launched("retune", request))
    assert reason(filled.sensor(waiting_retunes)) == "no retune is waiting"


def test_a_materialize_all_that_failed_in_its_retune_is_not_repeated(filled):
    filled.instance.add_backfill(failed_backfill("failed", [CURATED, CATALOG, CHAMPION]))
    filled.created("__ASSET_JOB", [CATALOG, CHAMPION], **{BACKFILL_ID_TAG: "failed"})
    assert reason(filled.sensor(waiting_retunes)) == "no retune is waiting"


def failed_backfill(name: str, assets: list[dg.AssetKey]) -> PartitionBackfill:
    return PartitionBackfill(name, BulkActionStatus.COMPLETED_FAILED, False, {}, time.time(), asset_selection=assets)


def evaluated_last(ticking: Ticking) -> None:
    """As if a candidate of the home's present data had been evaluated, and rejected."""
    inputs = HomeStatus.of(ticking.home, ticking.lab.settings).inputs
    rejected = {"candidate": "c", "reference": "base", "verdict": {"promoted": False}, "report": "r/report.md"}
    write_json(ticking.home.evaluations / "last.json", {"inputs": inputs, **rejected})


# --- settings


@pytest.mark.parametrize("wrong", ["seed: many", "schedule: {cron: every night}", "[", "schedule: {timezone: Nowhere}"])
def test_with_wrong_settings_every_tick_names_the_file(ticking, wrong):
    ticking.home.settings_file.write_text(f"taxonomy: {{path: ../taxonomy}}\n{wrong}\n")
    for tick in (*map(ticking.sensor, (taxonomy_changes, stale_leaves)), ticking.night()):
        assert reason(tick).startswith(str(ticking.home.settings_file))


def test_with_wrong_settings_the_definitions_load(fresh):
    fresh.home.settings_file.write_text("taxonomy: {path: ../taxonomy}\nschedule: {cron: every night}\n")
    assert loaded_statuses(fresh.home) == ["RUNNING"] * 5


def test_what_may_cost_money_without_a_limit_is_off_until_a_person_turns_it_on(fresh):
    fresh.set(teacher={**ENDPOINT, "api_key_env": "KEY"})
    assert loaded_statuses(fresh.home) == ["RUNNING", "STOPPED", "RUNNING", "RUNNING", "RUNNING"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, False),
        ({"teacher": ENDPOINT}, False),
        ({"judge": {**ENDPOINT, "api_key_env": "KEY"}}, True),
        ({"teacher": {**ENDPOINT, "api_key_env": "KEY"}, "judge": ENDPOINT}, True),
        ({"teacher": {**ENDPOINT, "api_key_env": "KEY"}, "budgets": {"teacher_calls": 9}}, False),
        ({"teacher": {**ENDPOINT, "api_key_env": "KEY"}, "budgets": {"teacher_money": 9.5}}, False),
    ],
)
def test_costs_are_unlimited_if_a_model_wants_a_key_and_no_budget_is_set(settings, expected):
    assert unlimited_costs(Settings.model_validate({"taxonomy": {"path": "."}, **settings})) == expected


def loaded_statuses(home: Home) -> list[str]:
    """Default status of what runs by itself, as a new process loads the definitions of that home."""
    script = (
        "from lab_pipeline.definitions import defs\n"
        "sensors = ('taxonomy_changes', 'stale_leaves', 'waiting_retunes', 'crashed_runs')\n"
        "found = [*map(defs.resolve_sensor_def, sensors), defs.resolve_schedule_def('nightly_retune')]\n"
        "print(*(each.default_status.value for each in found))"
    )
    environment = {**os.environ, "LAB_HOME": str(home.root)}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
