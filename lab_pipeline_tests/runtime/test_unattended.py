"""Nobody at the keyboard: the real daemon keeps a home in step with a git repository, and retunes by its own cron.

The daemon looks every 5 seconds which sensors are due, whatever their interval; so latency is counted in ticks, not seconds.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from lab_pipeline.config.settings import load_settings
from lab_pipeline.core.storage import read_rows
from lab_pipeline.datasets.catalog import build_catalog, current_catalog
from lab_pipeline.datasets.dataset import load_dataset
from lab_pipeline.evaluation.evaluate import last_evaluation
from lab_pipeline.instructions.plan import LeafPlan, find_stale_leaves, leaf_state, plan_leaves
from lab_pipeline.instructions.refresh import refresh_leaves
from lab_pipeline.taxonomy.snapshot import Snapshot, current_snapshot, take_snapshot
from lab_pipeline.teacher.choose import load_teachers, teacher_identities
from lab_pipeline_tests.builders import FOUNDATIONAL, FREEFORM, GROUNDED, KNOWLEDGE, edit_yaml, write_taxonomy
from lab_pipeline_tests.daemon import daemon, finished, tick_says, wait_for
from lab_pipeline_tests.lab import OPEN_GATE, TestLab, lab, obliging
from lab_pipeline_tests.repositories import commit_files, git
from lab_pipeline_tests.stub_endpoint import Answer, Asked

NEVER, EVERY_MINUTE = "0 3 1 1 *", "* * * * *"
SENSORS = {"interval_seconds": 2, "retry_seconds": 3, "attempts": 3}


@dataclass
class Life:
    """A home on the branch `main` of a git repository, and the instance that its daemon works on."""

    lab: TestLab
    instance: dg.DagsterInstance
    running: ExitStack
    """Holds the daemon."""

    def start(self) -> None:
        self.running.enter_context(daemon(self.lab.home.root / "daemon.log"))

    def stop(self) -> None:
        self.running.close()

    @property
    def repository(self) -> Path:
        return self.lab.taxonomy

    @property
    def snapshot(self) -> Snapshot:
        return current_snapshot(self.lab.home)

    @property
    def plans(self) -> dict[str, LeafPlan]:
        settings = load_settings(self.lab.home.settings_file)
        return plan_leaves(self.lab.home, self.snapshot, settings, *teacher_identities(settings))

    def edit(self, leaf: str, wording: str) -> str:
        """Commit another task description; returns the commit."""
        edit_yaml(self.repository / leaf / "qna.yaml", lambda value: value.update(task_description=wording))
        return commit_files(self.repository, {})

    def revert(self) -> str:
        git(self.repository, "revert", "--no-edit", "HEAD")
        return git(self.repository, "rev-parse", "HEAD")

    def runs(self, job: str, since: float = 0) -> list[dg.DagsterRun]:
        """Newest first; those created after `since`."""
        records = self.instance.get_run_records(dg.RunsFilter(job_name=job))
        return [record.dagster_run for record in records if record.create_timestamp.timestamp() > since]

    def ticks(self, name: str, since: float = 0.0) -> list[Any]:
        """Newest first; those that began after `since`."""
        for state in self.instance.all_instigator_state():
            if state.name == name:
                return list(self.instance.get_ticks(state.instigator_origin_id, state.selector_id, after=since))
        return []

    def says(self, name: str, words: str, seconds: float = 120) -> str:
        """Wait until the last tick of a sensor or schedule says that."""
        return wait_for(
            f"{name} to say {words!r}", lambda: (said := tick_says(self.instance, name)) and words in said and said, seconds
        )

    def created(self, run: dg.DagsterRun) -> float:
        return self.instance.get_run_record_by_id(run.run_id).create_timestamp.timestamp()

    def ended(self, run: dg.DagsterRun) -> float | None:
        return self.instance.get_run_record_by_id(run.run_id).end_time

    def looks_until(self, run: dg.DagsterRun, sensor: str, since: float) -> int:
        """How many of the sensor's ticks it took until one asked for the run."""
        asked = wait_for("the tick to end", lambda: [tick for tick in self.ticks(sensor) if run.run_id in tick.run_ids], 10)
        return sum(since < tick.timestamp <= asked[0].timestamp for tick in self.ticks(sensor))

    def made(self, run: dg.DagsterRun, asset: str) -> bool:
        """Whether the run has materialized the asset."""
        events = self.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        return any(event.dagster_event.asset_key == dg.AssetKey(asset) for event in events if event.dagster_event)

    def evaluated(self) -> dict[str, str]:
        """Fingerprint of the rows of each leaf that the last evaluated model was made from."""
        evaluation = last_evaluation(self.lab.home)
        return {leaf["leaf"]: leaf["curated"] for leaf in evaluation["leaves"]} if evaluation else {}

    def in_model(self) -> bool:
        """Whether that is what the taxonomy asks for now."""
        return self.evaluated() == {leaf: plan.curated for leaf, plan in self.plans.items()}

    def settled(self, commit: str, *behind: str) -> bool:
        """Whether a snapshot of the commit was taken, only those leaves are behind, and nothing is under way."""
        idle = all(run.is_finished for run in self.instance.get_runs())
        if not (idle and self.lab.home.current_snapshot.exists() and self.snapshot.taxonomy_commit == commit):
            return False
        return find_stale_leaves(self.lab.home, self.plans) == sorted(behind)

    def settle(self, commit: str, *behind: str, seconds: float = 90) -> None:
        wait_for(f"the home to be in step with {commit[:12]}", lambda: self.settled(commit, *behind), seconds)

    def leaf_file(self, leaf: str, table: str) -> Path:
        return self.plans[leaf].path(self.lab.home, table)  # type: ignore[arg-type]

    def answers(self, reply: Callable[[Asked], Answer]) -> None:
        self.lab.stub.reply = reply


@contextmanager
def life(folder: Path, model: Path, cron: str) -> Iterator[Life]:
    """A home whose leaves are all current, without a daemon yet."""
    taxonomy = write_taxonomy(folder / "taxonomy")
    commit_files(taxonomy, {})
    with pytest.MonkeyPatch.context() as patch, lab(folder, taxonomy, model, patch) as opened:
        opened.set(taxonomy={"path": str(taxonomy), "ref": "main"}, sensors=SENSORS, schedule={"cron": cron}, gate=OPEN_GATE)
        with dg.DagsterInstance.get() as instance, ExitStack() as running:
            made = Life(opened, instance, running)
            settings = load_settings(opened.home.settings_file)
            snapshot = take_snapshot(opened.home, settings)
            teacher, judge = load_teachers(opened.home, settings)
            plans = list(made.plans.values())
            refresh_leaves(opened.home, plans, settings, teacher, judge, snapshot.taxonomy_commit, print, print)
            yield made


@pytest.fixture(scope="module")
def home(tmp_path_factory, tiny_model) -> Iterator[Life]:
    """One life for all the long tests, which follow each other in it."""
    with life(tmp_path_factory.mktemp("life"), tiny_model, NEVER) as made:
        made.start()
        yield made


@pytest.fixture
def timed(request) -> Iterator[None]:
    started = time.monotonic()
    yield
    print(f"\n{request.node.name}: {time.monotonic() - started:.0f} s")


pytestmark = pytest.mark.usefixtures("timed")


def test_a_commit_that_edits_a_leaf_leads_to_a_snapshot_and_a_run_of_exactly_that_leaf(tmp_path):
    with life(tmp_path, tmp_path, NEVER) as home:
        home.start()
        home.says("stale_leaves", "all leaves are current", 90)
        untouched = {leaf: leaf_state(home.lab.home, leaf) for leaf in (KNOWLEDGE, GROUNDED, FOUNDATIONAL)}
        calls, wording = home.lab.calls(), "Short lines about lamps"
        commit, committed_at = home.edit(FREEFORM, wording), time.time()
        home.settle(commit)

        (snapshot,), (refresh,) = home.runs("snapshot_taxonomy"), home.runs("refresh_leaves")
        assert refresh.tags["dagster/partition"] == FREEFORM and refresh.status == dg.DagsterRunStatus.SUCCESS
        asked = home.lab.stub.requests[calls:]
        assert asked and all(wording in json.dumps(each.body) or "Answer Yes or No" in each.last for each in asked)
        assert {leaf: leaf_state(home.lab.home, leaf) for leaf in untouched} == untouched

        assert home.looks_until(snapshot, "taxonomy_changes", committed_at) <= 2
        taken_at, requested_at = home.ended(snapshot), home.created(refresh)
        assert home.looks_until(refresh, "stale_leaves", taken_at) <= 2
        seconds = [round(at - committed_at, 1) for at in (taken_at, requested_at)]
        print(f"\nseconds from the commit to its snapshot, to the request of the leaf: {seconds}")


@pytest.mark.long
def test_a_leaf_that_goes_to_and_fro_is_rebuilt_from_the_journal_or_taken_as_it_is_without_a_call(home):
    first = leaf_state(home.lab.home, FREEFORM)
    tables = {table: home.leaf_file(FREEFORM, table) for table in ("generated", "judged", "curated", "rejected")}
    rows = _rows(tables["curated"])
    home.settle(home.edit(FREEFORM, "Short lines about lamps"))
    second, calls, since = leaf_state(home.lab.home, FREEFORM), home.lab.calls(), time.time()
    assert second.curated != first.curated

    for path in tables.values():
        path.unlink()
    home.settle(home.revert())
    assert leaf_state(home.lab.home, FREEFORM).curated == first.curated
    assert _rows(tables["curated"]) == rows
    home.settle(home.revert())
    assert leaf_state(home.lab.home, FREEFORM).curated == second.curated
    assert home.lab.calls() == calls
    assert [run.tags["dagster/partition"] for run in home.runs("refresh_leaves", since)] == [FREEFORM, FREEFORM]


def _rows(path: Path) -> list[dict]:
    """Rows of a table, but for the commit that they were last made at."""
    return [{**row, "taxonomy_commit": None} for row in read_rows(path)]


@pytest.mark.long
def test_rewritten_history_switched_branches_broken_leaves_and_a_lost_remote_are_survived_and_said(home):
    git(home.repository, "commit", "--quiet", "--amend", "--message", "another past")
    home.settle(git(home.repository, "rev-parse", "HEAD"))
    (note,) = home.snapshot.notes
    assert "the history of main was rewritten" in note

    good, since = leaf_state(home.lab.home, GROUNDED), time.time()
    git(home.repository, "checkout", "--quiet", "-b", "other")
    qna = home.repository / GROUNDED / "qna.yaml"
    broken = commit_files(home.repository, {str(qna): qna.read_text() + "surprise: true\n"})
    home.lab.set(taxonomy={"path": str(home.repository), "ref": "other"})
    home.settle(broken)
    assert home.snapshot.notes == ["the taxonomy was switched from main to other"]
    assert any("surprise" in problem for problem in home.snapshot.problems[GROUNDED])
    entry = next(
        each for each in build_catalog(home.lab.home, home.snapshot, home.plans, True).leaves if each["leaf"] == GROUNDED
    )
    assert entry["state"] == "quarantined" and entry["rows"] > 0 and entry["curated"] == good.curated

    git(home.repository, "checkout", "--quiet", "main")
    home.lab.set(taxonomy={"path": str(home.repository), "ref": "main"})
    home.settle(git(home.repository, "rev-parse", "HEAD"))
    assert home.snapshot.notes == ["the taxonomy was switched from other to main"]
    assert len(home.runs("snapshot_taxonomy", since)) == 2 and not home.runs("refresh_leaves", since)

    away = home.repository.rename(home.repository.with_name("away"))
    home.says("taxonomy_changes", "cannot be reached")
    away.rename(home.repository)
    home.says("taxonomy_changes", f"has not changed since snapshot {home.snapshot.id}")
    assert len(home.runs("snapshot_taxonomy", since)) == 2


@pytest.mark.long
def test_a_leaf_whose_teacher_is_down_is_tried_with_longer_waits_then_left_to_a_person_until_its_next_edit(home):
    good, since = leaf_state(home.lab.home, FOUNDATIONAL), time.time()
    home.answers(lambda asked: Answer(status=503, body="down"))
    commit = home.edit(FOUNDATIONAL, "Order them")
    assert "HTTP 503" in home.says("stale_leaves", f"{FOUNDATIONAL}: needs attention", 120)
    third, second, first = home.runs("refresh_leaves", since)
    assert {run.tags["dagster/partition"] for run in (first, second, third)} == {FOUNDATIONAL}
    waits = [home.created(second) - home.ended(first), home.created(third) - home.ended(second)]
    assert waits[0] > SENSORS["retry_seconds"] - 2 and waits[1] > 2 * SENSORS["retry_seconds"] - 2, waits
    now = time.time()
    wait_for("two further ticks", lambda: len(home.ticks("stale_leaves", now)) >= 2, 30)
    assert len(home.runs("refresh_leaves", since)) == 3
    assert home.settled(commit, FOUNDATIONAL) and leaf_state(home.lab.home, FOUNDATIONAL) == good

    home.answers(obliging)
    home.settle(home.edit(FOUNDATIONAL, "Bring them into order"))
    assert home.says("stale_leaves", "all leaves are current")


@pytest.mark.long
def test_the_night_retunes_what_changed_and_skips_what_did_not(home):
    home.stop()
    home.lab.set(schedule={"cron": EVERY_MINUTE})
    home.start()
    (retune,) = wait_for("the first night's retune", lambda: finished(home.instance, "retune", 1), 200)
    assert retune.status == dg.DagsterRunStatus.SUCCESS and retune.tags["dagster/schedule_name"] == "nightly_retune"
    assert home.in_model() and set(home.evaluated()) == {KNOWLEDGE, GROUNDED, FREEFORM, FOUNDATIONAL}
    home.says("nightly_retune", "nothing changed since the last evaluated candidate", 130)
    home.says("waiting_retunes", "no retune is waiting", 60)  # the ticks that came while it ran are forgotten
    assert len(home.runs("retune")) == 1


@pytest.mark.long
def test_the_night_waits_for_leaves_and_a_commit_during_the_retune_goes_into_the_next_one(home):
    teacher_answers = threading.Event()

    def held(asked: Asked) -> Answer:
        teacher_answers.wait(100)
        return obliging(asked)

    home.answers(held)
    since = time.time()
    commit = home.edit(GROUNDED, "Take notes")
    (refresh,) = wait_for("the refresh", lambda: home.runs("refresh_leaves", since), 60)
    home.says("nightly_retune", "the retune waits: ", 130)
    assert not home.runs("retune", since)
    wait_for("a moment well before the next night", lambda: time.time() % 60 < 40, 30)
    teacher_answers.set()
    (second,) = wait_for("the retune that waited", lambda: home.runs("retune", since), 60)
    assert second.tags["dagster/sensor_name"] == "waiting_retunes"
    assert home.looks_until(second, "waiting_retunes", home.ended(refresh)) <= 2
    assert home.snapshot.taxonomy_commit == commit

    wait_for("its catalog", lambda: home.made(second, "instruction_catalog"), 60)
    frozen = {leaf["leaf"]: leaf["curated"] for leaf in current_catalog(home.lab.home).in_use}
    since = time.time()
    git(home.repository, "rm", "-rq", GROUNDED)
    commit_files(home.repository, {})
    wait_for("some seconds", lambda: time.time() - since > 3, 10)
    last_commit = home.edit(FREEFORM, "Lines about the sea")
    wait_for("the retune", lambda: home.ended(second), 120)
    assert home.evaluated() == frozen and GROUNDED in frozen

    wait_for("the next retune", lambda: home.settled(last_commit) and home.in_model(), 240)
    assert set(home.evaluated()) == {KNOWLEDGE, FREEFORM, FOUNDATIONAL}
    assert set(load_dataset(home.lab.home, "skills").by_leaf) <= set(home.evaluated())
    snapshots = home.runs("snapshot_taxonomy", since)
    assert len({run.tags["lab/wants"] for run in snapshots}) == len(snapshots) in (1, 2)


@pytest.mark.long
def test_missed_nights_are_caught_up_once(home):
    home.says("nightly_retune", "nothing changed", 130)
    home.stop()
    stopped_at = time.time()
    home.lab.set(gate={**OPEN_GATE, "general_tolerance": 40.0})
    wait_for("two nights", lambda: time.time() // 60 >= stopped_at // 60 + 2, 130)
    home.start()
    started_at = time.time()
    (retune,) = wait_for("the missed retune", lambda: home.runs("retune", stopped_at), 60)
    home.says("nightly_retune", "nothing changed", 130)
    (caught_up,) = [tick for tick in home.ticks("nightly_retune", stopped_at) if tick.timestamp < started_at]
    assert caught_up.run_ids == [retune.run_id]
    assert len(home.runs("retune", stopped_at)) == 1
