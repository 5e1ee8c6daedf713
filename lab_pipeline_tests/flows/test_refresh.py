from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from filelock import FileLock

from lab_pipeline.flows.flow import SHIPPED, Flow, FlowError
from lab_pipeline.flows.known_rows import separation
from lab_pipeline.flows.refresh import (
    Backlog,
    LeafFailure,
    LeafPlan,
    LeafState,
    Table,
    backlog,
    leaf_failure,
    leaf_state,
    leaves_behind,
    plan_leaves,
    refresh_leaves,
)
from lab_pipeline.registry.base_model import BaseModel
from lab_pipeline.settings import BudgetSettings, FlowSettings, SensorSettings, Settings
from lab_pipeline.storage import Home, read_json, read_rows, write_json
from lab_pipeline.taxonomy.leaf import Kind
from lab_pipeline.taxonomy.snapshot import Snapshot, current_snapshot, take_snapshot
from lab_pipeline.teacher.protocol import Reply, Request, TeacherError
from lab_pipeline_tests.builders import (
    FREEFORM,
    GROUNDED,
    KNOWLEDGE,
    edit_yaml,
    settings_for,
    write_knowledge,
    write_skill,
)
from lab_pipeline_tests.scripted_teacher import ScriptedTeacher, copying, known_verdicts

TABLES: tuple[Table, ...] = get_args(Table)


@dataclass
class Outcome:
    states: dict[str, LeafState] = field(default_factory=dict)
    failures: dict[str, LeafFailure] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)


@dataclass
class Lab:
    """A home with a small taxonomy of one leaf of each kind; `flow` is the knowledge leaf's own flow."""

    home: Home
    settings: Settings
    taxonomy: Path
    flow: Path
    teacher: ScriptedTeacher
    judge: ScriptedTeacher
    snapshot: Snapshot

    def plans(self) -> dict[str, LeafPlan]:
        return plan_leaves(self.home, self.snapshot, self.settings, self.teacher.identity, self.judge.identity)

    def look_again(self) -> None:
        self.snapshot = take_snapshot(self.home, self.settings)

    def elsewhere(self, root: Path, **others: Any) -> Lab:
        """The same lab with an empty home."""
        other = replace(self, home=Home.open(root), **others)
        other.look_again()
        return other

    def refresh(self, *leaves: str, plans: dict[str, LeafPlan] | None = None) -> Outcome:
        """Refresh these leaves, or all of them."""
        outcome = Outcome()

        def on_done(done: LeafState | LeafFailure) -> None:
            if isinstance(done, LeafState):
                outcome.states[done.leaf] = done
            else:
                outcome.failures[done.leaf] = done

        plans = plans or self.plans()
        wanted = [plan for leaf, plan in plans.items() if not leaves or leaf in leaves]
        refresh_leaves(self.home, wanted, self.settings, self.teacher, self.judge, "commit", outcome.said.append, on_done)
        return outcome

    def calls(self) -> tuple[int, int]:
        """Requests that reached teacher and judge since last asked."""
        counts = len(self.teacher.requests), len(self.judge.requests)
        self.teacher.requests.clear()
        self.judge.requests.clear()
        return counts

    def tables(self, leaf: str) -> dict[str, bytes]:
        plan = self.plans()[leaf]
        return {table: plan.path(self.home, table).read_bytes() for table in TABLES}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with taxonomy, flows and a home with a snapshot."""
    root = tmp_path_factory.mktemp("prepared")
    write_knowledge(root / "taxonomy", KNOWLEDGE, "documents")
    (document,) = (root / "taxonomy" / "documents").iterdir()
    document.write_text("The gate of Harsk is made of walnut. It was built by Pellira Donsk. Its two towers are called twins.")
    write_skill(root / "taxonomy", GROUNDED, seeds=5, grounded=True)
    write_skill(root / "taxonomy", FREEFORM, seeds=5)
    shutil.copytree(SHIPPED, root / "flows", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for skill in ("simple_grounded_skill", "simple_freeform_skill"):
        edit_yaml(root / "flows" / skill / "flow.yaml", lambda file: file["start"].update(repeats=1))
    two_ways = {"temperatures": [0.0, 0.7]}  # the scripted teacher knows no third
    edit_yaml(root / "flows" / "simple_knowledge" / "flow.yaml", lambda file: file["stages"][0].update(two_ways))
    take_snapshot(Home.open(root / "home"), settings_for(root / "taxonomy"))
    return root


@pytest.fixture
def lab(prepared: Path, tmp_path: Path) -> Lab:
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    home = Home.open(tmp_path / "home")
    own = {kind: str(tmp_path / "flows" / f"simple_{kind}") for kind in get_args(Kind)}
    settings = settings_for(tmp_path / "taxonomy", flows=FlowSettings(**own))
    teacher, judge = ScriptedTeacher(identity="teacher"), ScriptedTeacher(identity="judge")
    return Lab(home, settings, tmp_path / "taxonomy", Path(own["knowledge"]), teacher, judge, current_snapshot(home))


def failing_on(leaf: str) -> Callable[[Request], str | Reply]:
    """Good replies, but none to the requests of one kind of leaf."""
    sign = {KNOWLEDGE: "about a sentence", GROUNDED: "short text for an exercise", FREEFORM: "of the same kind as"}[leaf]

    def script(request: Request) -> str | Reply:
        if sign in request.messages[0].content:
            raise TeacherError("out of paper")
        return copying(request)

    return script


def test_a_refresh_makes_all_tables_of_all_leaves_and_says_how_far_it_is(lab: Lab) -> None:
    outcome = lab.refresh()
    assert outcome.failures == {}
    assert set(outcome.states) == {KNOWLEDGE, GROUNDED, FREEFORM}
    for leaf, plan in lab.plans().items():
        assert all(plan.path(lab.home, table).exists() for table in TABLES)
        assert leaf_state(lab.home, leaf) == outcome.states[leaf]
    assert leaves_behind(lab.home, lab.plans()) == []
    calls = sum(lab.calls())
    assert outcome.said[-1].startswith(f"teacher calls: {calls} of {calls} (")
    assert sum(state.teacher_calls for state in outcome.states.values()) == calls


def test_a_second_refresh_calls_nobody_and_writes_no_table(lab: Lab) -> None:
    lab.refresh()
    lab.calls()
    before = lab.tables(KNOWLEDGE)
    outcome = lab.refresh()
    assert lab.calls() == (0, 0)
    assert lab.tables(KNOWLEDGE) == before
    assert {state.teacher_calls for state in outcome.states.values()} == {0}


def test_only_the_leaves_asked_for_are_refreshed(lab: Lab) -> None:
    assert set(lab.refresh(FREEFORM).states) == {FREEFORM}
    assert leaves_behind(lab.home, lab.plans()) == [GROUNDED, KNOWLEDGE]


def test_the_same_taxonomy_gives_the_same_bytes_in_another_home(lab: Lab, tmp_path: Path) -> None:
    lab.refresh()
    other = lab.elsewhere(tmp_path / "other", teacher=ScriptedTeacher(identity="teacher", pace=lambda number: number % 7))
    other.refresh()
    for leaf in lab.plans():
        assert other.tables(leaf) == lab.tables(leaf)


def test_the_funnel_adds_up_to_the_tables(lab: Lab) -> None:
    edit_yaml(lab.flow / "flow.yaml", lambda file: file["rules"].update(question_words=[4, 5]))
    for leaf, state in lab.refresh().states.items():
        plan = lab.plans()[leaf]
        rows = {table: read_rows(plan.path(lab.home, table)) for table in TABLES}
        funnel = dict(state.funnel)
        assert funnel.pop("generated") == len(rows["generated"]) == len(rows["judged"]) == sum(funnel.values())
        assert funnel.pop("kept") == len(rows["curated"])
        assert sum(funnel.values()) == len(rows["rejected"])
        for rule, count in funnel.items():
            assert count == sum(row["rule"] == rule for row in rows["rejected"])
        assert {row["id"] for row in rows["curated"] + rows["rejected"]} == {row["id"] for row in rows["generated"]}


def test_held_out_seeds_are_in_no_request(lab: Lab) -> None:
    lab.refresh()
    everything = "\n".join(
        message.content for request in lab.teacher.requests + lab.judge.requests for message in request.messages
    )
    held_out = [question["question"] for row in lab.snapshot.rows for question in row["heldout_questions"]]
    assert len(held_out) == 5 + 1 + 1
    assert [question for question in held_out if question in everything] == []


def test_a_changed_threshold_curates_again_without_a_call(lab: Lab) -> None:
    kept = lab.refresh(KNOWLEDGE).states[KNOWLEDGE].funnel["kept"]
    before = lab.tables(KNOWLEDGE)
    lab.calls()
    edit_yaml(lab.flow / "flow.yaml", lambda file: file["rules"].update(question_words=[40, 50]))
    assert lab.refresh(KNOWLEDGE).states[KNOWLEDGE].funnel["kept"] == 0 < kept
    assert lab.calls() == (0, 0)
    after = lab.tables(KNOWLEDGE)
    assert [table for table in TABLES if after[table] != before[table]] == ["curated", "rejected"]


def discerning(flow: Flow, otherwise: Reply) -> Callable[[Request], Reply]:
    """A judge that tells the flow's known rows apart, and says the same of all others."""
    known = known_verdicts(flow)

    def script(request: Request) -> Reply:
        is_good = known.get(request.messages[-1].content)
        return otherwise if is_good is None else Reply("", "stop", 1, 1, {"Yes": float(is_good), "No": float(not is_good)})

    return script


DOUBTFUL = Reply("No", "stop", 1, 1, {"Yes": 0.4, "No": 0.6})


def test_a_judge_that_begins_to_gate_is_asked_about_the_known_rows_only_and_once(lab: Lab) -> None:
    lab.judge.script = lambda request: DOUBTFUL
    assert "judge faithful" not in lab.refresh(KNOWLEDGE).states[KNOWLEDGE].funnel
    lab.calls()
    edit_yaml(lab.flow / "flow.yaml", lambda file: file["judges"][0].update(gates=True))
    flow = lab.plans()[KNOWLEDGE].flow
    lab.judge.script = discerning(flow, DOUBTFUL)
    funnel = lab.refresh(KNOWLEDGE).states[KNOWLEDGE].funnel
    assert funnel["judge faithful"] > 0 == funnel["kept"]
    assert lab.calls() == (0, len(known_verdicts(flow)))
    about = separation(lab.home, flow, flow.file.judges[0], "judge")
    assert about is not None
    assert (about["area"], about["separates"]) == (1.0, True)
    edit_yaml(lab.flow / "flow.yaml", lambda file: file["judges"][0].update(minimum=0.3))
    assert lab.refresh(KNOWLEDGE).states[KNOWLEDGE].funnel["kept"] > 0
    assert lab.calls() == (0, 0)


@pytest.mark.parametrize("verdict", [DOUBTFUL, Reply("Who knows?", "stop", 1, 1)])
def test_a_judge_that_does_not_tell_known_rows_apart_only_advises(lab: Lab, verdict: Reply) -> None:
    edit_yaml(lab.flow / "flow.yaml", lambda file: file["judges"][0].update(gates=True))
    lab.judge.script = lambda request: verdict
    outcome = lab.refresh(KNOWLEDGE)
    assert any("judge faithful does not tell its known rows apart" in said for said in outcome.said)
    funnel = outcome.states[KNOWLEDGE].funnel
    assert funnel["kept"] > 0 and not any(stage.startswith("judge") for stage in funnel)
    flow = lab.plans()[KNOWLEDGE].flow
    about = separation(lab.home, flow, flow.file.judges[0], "judge")
    assert about is not None and about["area"] <= 0.5 and not about["separates"]


def test_a_judge_that_may_gate_is_asked_again_when_its_prompt_or_its_known_rows_change(lab: Lab) -> None:
    edit_yaml(lab.flow / "flow.yaml", lambda file: file["judges"][0].update(gates=True))
    lab.refresh()
    rows = len(read_rows(lab.plans()[KNOWLEDGE].path(lab.home, "judged")))
    lab.calls()
    edit_yaml(lab.flow / "known_rows.yaml", lambda file: file["good"][0].update(answer="It was lit in 1884."))
    assert leaves_behind(lab.home, lab.plans()) == [KNOWLEDGE]
    lab.refresh(KNOWLEDGE)
    assert lab.calls() == (0, 1), "the other known rows are in the journal"
    edit_yaml(lab.flow / "faithful.yaml", lambda prompt: prompt[0]["each"][0].update(answer="In 1820."))
    lab.refresh(KNOWLEDGE)
    assert lab.calls() == (0, len(known_verdicts(lab.plans()[KNOWLEDGE].flow)) + rows)


def test_calls_about_known_rows_that_a_budget_cut_short_are_kept(lab: Lab) -> None:
    edit_yaml(lab.flow / "flow.yaml", lambda file: file["judges"][0].update(gates=True))
    known = len(known_verdicts(lab.plans()[KNOWLEDGE].flow))
    lab.settings = lab.settings.model_copy(update={"budgets": BudgetSettings(teacher_calls=5)})
    assert "BudgetSpent" in lab.refresh(KNOWLEDGE).failures[KNOWLEDGE].error
    assert lab.calls() == (0, 5)
    lab.settings = lab.settings.model_copy(update={"budgets": BudgetSettings()})
    lab.refresh(KNOWLEDGE)
    asked = [request.messages[-1].content for request in lab.judge.requests]
    assert sum(content in known_verdicts(lab.plans()[KNOWLEDGE].flow) for content in asked) == known - 5


def test_what_is_curated_does_not_depend_on_the_thresholds_before(lab: Lab, tmp_path: Path) -> None:
    lab.refresh(KNOWLEDGE)
    edit_yaml(lab.flow / "flow.yaml", lambda file: file["judges"][0].update(minimum=0.95, gates=True))
    lab.refresh(KNOWLEDGE)
    at_once = lab.elsewhere(tmp_path / "other")
    at_once.refresh(KNOWLEDGE)
    assert at_once.tables(KNOWLEDGE) == lab.tables(KNOWLEDGE)


def test_a_changed_judge_prompt_judges_again_and_nothing_else(lab: Lab) -> None:
    lab.refresh()
    rows = len(read_rows(lab.plans()[KNOWLEDGE].path(lab.home, "generated")))
    lab.calls()
    edit_yaml(lab.flow / "faithful.yaml", lambda prompt: prompt[0]["each"][0].update(answer="In 1820."))
    assert leaves_behind(lab.home, lab.plans()) == [KNOWLEDGE]
    lab.refresh()
    assert lab.calls() == (0, rows)


def test_another_judge_judges_every_leaf_again_and_nothing_else(lab: Lab) -> None:
    lab.refresh()
    _, judged = lab.calls()
    lab.judge.identity = "wiser judge"
    lab.refresh()
    assert lab.calls() == (0, judged)


def test_another_teacher_prompt_or_random_seed_makes_everything_again(lab: Lab) -> None:
    lab.refresh()
    everything = lab.calls()
    assert min(everything) > 0
    lab.teacher.identity = "wiser teacher"
    lab.refresh()
    assert lab.calls()[0] == everything[0]
    lab.settings = lab.settings.model_copy(update={"seed": 18})
    lab.refresh()
    assert lab.calls()[0] > 0
    edit_yaml(lab.flow / "question.yaml", lambda prompt: prompt[0].update(content="Another beginning."))
    assert leaves_behind(lab.home, lab.plans()) == [KNOWLEDGE]


def test_a_changed_seed_leaves_other_leaves_alone(lab: Lab) -> None:
    lab.refresh()
    edit_yaml(
        lab.taxonomy / FREEFORM / "qna.yaml",
        lambda file: [seed.update(answer="Another answer.") for seed in file["seed_examples"]],
    )
    lab.look_again()
    assert leaves_behind(lab.home, lab.plans()) == [FREEFORM]


def test_a_leaf_that_is_broken_has_no_plan_and_one_that_only_changed_hands_is_not_behind(lab: Lab) -> None:
    lab.refresh()
    edit_yaml(lab.taxonomy / FREEFORM / "qna.yaml", lambda file: file.update(seed_examples=[]))
    edit_yaml(lab.taxonomy / GROUNDED / "qna.yaml", lambda file: file.update(created_by="somebody else"))
    lab.look_again()
    assert set(lab.plans()) == {GROUNDED, KNOWLEDGE}
    assert leaves_behind(lab.home, lab.plans()) == []


def test_a_change_taken_back_costs_nothing(lab: Lab) -> None:
    first = lab.refresh(KNOWLEDGE).states[KNOWLEDGE]
    original = (lab.flow / "flow.yaml").read_text()
    edit_yaml(lab.flow / "flow.yaml", lambda file: file["stages"][0].update(max_tokens=39))
    lab.refresh(KNOWLEDGE)
    lab.calls()
    (lab.flow / "flow.yaml").write_text(original)
    again = lab.refresh(KNOWLEDGE).states[KNOWLEDGE]
    assert lab.calls() == (0, 0)
    assert (again.curated, again.funnel) == (first.curated, first.funnel)


def test_a_flow_that_cannot_be_used_is_said_before_anything_runs(lab: Lab) -> None:
    (lab.flow / "question.yaml").write_text("- nonsense")
    with pytest.raises(FlowError, match=r"simple_knowledge/question\.yaml"):
        lab.plans()


def test_a_failing_leaf_stops_no_other_and_its_record_counts_the_attempts(lab: Lab) -> None:
    lab.teacher.script = failing_on(GROUNDED)
    outcome = lab.refresh()
    assert set(outcome.states) == {KNOWLEDGE, FREEFORM}
    assert leaves_behind(lab.home, lab.plans()) == [GROUNDED]
    assert leaf_state(lab.home, GROUNDED) is None
    failure = outcome.failures[GROUNDED]
    assert (failure.error, failure.attempts, failure.teacher_calls) == ("TeacherError: out of paper", 1, 0)
    assert lab.refresh().failures[GROUNDED].attempts == 2
    recorded = leaf_failure(lab.home, lab.plans()[GROUNDED])
    assert recorded is not None
    assert (recorded["plan"], recorded["attempts"]) == (lab.plans()[GROUNDED].curated, 2)
    assert leaf_failure(lab.home, lab.plans()[FREEFORM]) is None


def test_attempts_are_counted_anew_when_the_plan_changes(lab: Lab) -> None:
    lab.teacher.script = failing_on(KNOWLEDGE)
    lab.refresh(KNOWLEDGE)
    lab.refresh(KNOWLEDGE)
    edit_yaml(lab.flow / "flow.yaml", lambda file: file["start"].update(examples=2))
    assert lab.refresh(KNOWLEDGE).failures[KNOWLEDGE].attempts == 1


def test_the_backlog_says_what_is_due_what_waits_and_what_is_left_to_a_person(lab: Lab) -> None:
    policy = SensorSettings(attempts=3, retry_seconds=100)

    def behind(seconds_later: float) -> Backlog:
        return backlog(lab.home, lab.plans(), policy, datetime.now(UTC) + timedelta(seconds=seconds_later))

    assert behind(0) == Backlog([GROUNDED, FREEFORM, KNOWLEDGE], {}, {})
    lab.teacher.script = failing_on(GROUNDED)
    lab.refresh()
    assert behind(0).due == [] and 90 < behind(0).waiting[GROUNDED] <= 100
    assert behind(101).due == [GROUNDED]
    assert behind(-3600).due == [GROUNDED], "a clock that was set back makes nothing wait"
    lab.refresh()
    assert 190 < behind(0).waiting[GROUNDED] <= 200, "twice as long after the second failure"
    lab.refresh()
    assert behind(10_000) == Backlog([], {}, {GROUNDED: "TeacherError: out of paper"})
    assert "needs attention: TeacherError: out of paper" in str(behind(0))
    edit_yaml(lab.flow / "flow.yaml", lambda file: file["start"].update(examples=2))
    assert behind(0).left == {GROUNDED: "TeacherError: out of paper"}, "another leaf's flow"
    lab.teacher.script = copying
    lab.refresh(GROUNDED)
    assert GROUNDED not in behind(0).due and behind(0).left == {}


def test_a_success_clears_the_failure(lab: Lab) -> None:
    lab.teacher.script = failing_on(GROUNDED)
    lab.refresh()
    lab.teacher.script = copying
    assert set(lab.refresh(GROUNDED).states) == {GROUNDED}
    assert leaf_failure(lab.home, lab.plans()[GROUNDED]) is None
    assert leaves_behind(lab.home, lab.plans()) == []


def test_a_failed_refresh_keeps_the_last_good_tables(lab: Lab) -> None:
    good = lab.refresh(KNOWLEDGE).states[KNOWLEDGE]
    kept = read_rows(lab.plans()[KNOWLEDGE].path(lab.home, "curated"))
    edit_yaml(lab.flow / "flow.yaml", lambda file: file["start"].update(examples=2))
    lab.teacher.script = failing_on(KNOWLEDGE)
    assert KNOWLEDGE in lab.refresh(KNOWLEDGE).failures
    assert leaf_state(lab.home, KNOWLEDGE) == good
    assert read_rows(lab.home.leaf(KNOWLEDGE) / f"curated-{good.curated}.parquet") == kept


@pytest.mark.parametrize("error", [TeacherError("no"), RuntimeError("no"), ZeroDivisionError("no")])
def test_whatever_goes_wrong_in_a_leaf_is_its_outcome(lab: Lab, error: Exception) -> None:
    def script(request: Request) -> str:
        raise error

    lab.judge.script = script
    outcome = lab.refresh()
    assert {failure.error for failure in outcome.failures.values()} == {f"{type(error).__name__}: no"}
    assert len(outcome.failures) == 3


def test_a_leaf_that_another_process_refreshes_is_left_to_it(lab: Lab) -> None:
    plans = lab.plans()
    lab.home.leaf(KNOWLEDGE).mkdir(parents=True)
    with FileLock(lab.home.leaf(KNOWLEDGE) / "lock"):
        outcome = lab.refresh(plans=plans)
    assert outcome.failures[KNOWLEDGE].error == "another process is refreshing this leaf"
    assert set(outcome.states) == {GROUNDED, FREEFORM}
    assert set(lab.refresh().states) == {KNOWLEDGE, GROUNDED, FREEFORM}


@pytest.mark.parametrize("survived", [0, 1, 3, 5])
def test_after_a_crash_in_the_middle_no_finished_call_is_made_again(lab: Lab, survived: int) -> None:
    answered: list[Request] = []

    def crashing(request: Request) -> str | Reply:
        if len(answered) == survived:
            raise RuntimeError("crash")
        answered.append(request)
        return copying(request)

    lab.teacher.script = crashing
    assert lab.refresh(KNOWLEDGE).failures[KNOWLEDGE].teacher_calls == survived
    lab.calls()

    def counting(request: Request) -> str | Reply:
        answered.append(request)
        return copying(request)

    lab.teacher.script = counting
    lab.refresh(KNOWLEDGE)
    assert len(answered) == len(set(answered)) == survived + lab.calls()[0]
    after_crash = lab.tables(KNOWLEDGE)
    shutil.rmtree(lab.home.leaf(KNOWLEDGE))
    lab.refresh(KNOWLEDGE)
    assert lab.tables(KNOWLEDGE) == after_crash


def test_a_crash_while_judging_repeats_no_generation(lab: Lab) -> None:
    verdicts = 0

    def crashing(request: Request) -> str | Reply:
        nonlocal verdicts
        verdicts += 1
        if verdicts == 3:
            raise RuntimeError("crash")
        return copying(request)

    lab.judge.script = crashing
    lab.refresh(FREEFORM)
    lab.calls()
    outcome = lab.refresh(FREEFORM)
    rows = outcome.states[FREEFORM].funnel["generated"]
    generated, judged = lab.calls()
    assert generated == 0
    assert 1 <= judged <= rows - 2


def test_a_lost_table_is_made_again_from_the_journal(lab: Lab) -> None:
    lab.refresh(KNOWLEDGE)
    before = lab.tables(KNOWLEDGE)
    lab.calls()
    plan = lab.plans()[KNOWLEDGE]
    for table in TABLES:
        plan.path(lab.home, table).unlink()
        lab.refresh(KNOWLEDGE)
        assert lab.tables(KNOWLEDGE) == before
    assert lab.calls() == (0, 0)


def test_a_budget_stops_cleanly_and_the_next_runs_go_on_from_there(lab: Lab) -> None:
    lab.refresh()
    everything = sum(lab.calls())
    shutil.rmtree(lab.home.root / "leaves")
    lab.settings = lab.settings.model_copy(update={"budgets": BudgetSettings(teacher_calls=9)})
    runs = [lab.refresh()]
    made = [sum(lab.calls())]
    assert runs[0].failures
    for failure in runs[0].failures.values():
        assert failure.error.startswith("BudgetSpent: the budget budgets.teacher_calls is spent")
    while runs[-1].failures:
        assert len(runs) < 20
        runs.append(lab.refresh())
        made.append(sum(lab.calls()))
    assert sum(made) == everything
    assert made[:-1] == [9] * (len(made) - 1)
    assert leaves_behind(lab.home, lab.plans()) == []


def test_calls_under_way_when_the_budget_ends_are_paid_for_and_kept(lab: Lab) -> None:
    lab.teacher.pace = lambda number: 50
    lab.settings = lab.settings.model_copy(update={"budgets": BudgetSettings(teacher_calls=4)})
    assert lab.refresh(KNOWLEDGE).failures[KNOWLEDGE].teacher_calls == lab.teacher.finished == 4
    asked = set(lab.teacher.requests)
    lab.calls()
    lab.refresh(KNOWLEDGE)
    assert asked.isdisjoint(lab.teacher.requests)


def test_a_budget_does_not_count_what_the_journal_answers(lab: Lab) -> None:
    lab.refresh()
    for leaf in lab.plans():
        for table in lab.home.leaf(leaf).glob("*.parquet"):
            table.unlink()
    lab.settings = lab.settings.model_copy(update={"budgets": BudgetSettings(teacher_calls=1)})
    assert lab.refresh().failures == {}


def test_a_leaf_whose_documents_hold_no_sentence_yields_no_rows(lab: Lab) -> None:
    plan = lab.plans()[KNOWLEDGE]
    source: dict[str, Any] = read_json(lab.home.leaf_source(plan.source))
    write_json(lab.home.leaf_source("empty"), {**source, "passages": []})
    outcome = lab.refresh(plans={KNOWLEDGE: replace(plan, source="empty")})
    assert outcome.states[KNOWLEDGE].funnel == {"generated": 0, "kept": 0}
    assert lab.calls() == (0, 0)


def test_grounding_is_measured_once_for_all_thresholds_and_never_by_the_teacher(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []

    def scores(folder: Path, rows: list[dict[str, Any]], say: Any) -> dict[str, float]:
        measured.append(len(rows))
        return {row["id"]: 1.0 for row in rows}

    monkeypatch.setattr("lab_pipeline.flows.refresh.fetch_model", lambda home, name: BaseModel(lab.flow, name, "digest"))
    monkeypatch.setattr("lab_pipeline.flows.refresh.grounding_scores", scores)
    before = lab.refresh(KNOWLEDGE).states[KNOWLEDGE].funnel
    assert measured == []
    calls = lab.calls()
    assert min(calls) > 0
    for threshold, kept in ((0.5, before["kept"]), (1.5, 0), (0.9, before["kept"])):
        edit_yaml(lab.flow / "flow.yaml", lambda file, threshold=threshold: file["rules"].update(grounding=threshold))
        assert lab.refresh(KNOWLEDGE).states[KNOWLEDGE].funnel["kept"] == kept
        rows = read_rows(lab.plans()[KNOWLEDGE].path(lab.home, "rejected" if not kept else "curated"))
        assert {row["grounding"] for row in rows if not row["fault"]} == {1.0}
    assert measured == [before["generated"]]
    assert lab.calls() == (0, 0)
