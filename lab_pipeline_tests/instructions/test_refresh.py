from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from lab_pipeline.config.settings import BudgetSettings
from lab_pipeline.config.teachers import EndpointTeacherSettings
from lab_pipeline.core.storage import read_json, read_rows, write_json
from lab_pipeline.evaluation.details import _teacher_costs
from lab_pipeline.instructions.plan import find_stale_leaves, leaf_failure, leaf_state
from lab_pipeline.teacher.endpoint import EndpointTeacher
from lab_pipeline.teacher.journal import read_journal
from lab_pipeline.teacher.protocol import Message, Reply, Request, TeacherError
from lab_pipeline_tests.builders import FREEFORM, GROUNDED, KNOWLEDGE, edit_yaml
from lab_pipeline_tests.instructions.leaf_lab import TABLES, Lab, Outcome, failing_on, spent
from lab_pipeline_tests.scripted_teacher import ScriptedTeacher, copying
from lab_pipeline_tests.stub_endpoint import Answer, Asked, StubEndpoint


def test_a_refresh_makes_all_tables_of_all_leaves_and_says_how_far_it_is(lab: Lab) -> None:
    outcome = lab.refresh()
    assert outcome.failures == {}
    assert set(outcome.states) == {KNOWLEDGE, GROUNDED, FREEFORM}
    for leaf, plan in lab.plans().items():
        assert all(plan.path(lab.home, table).exists() for table in TABLES)
        assert leaf_state(lab.home, leaf) == outcome.states[leaf]
    assert find_stale_leaves(lab.home, lab.plans()) == []
    calls = sum(lab.calls())
    assert outcome.said[-1].startswith(f"teacher calls: {calls} of {calls} (")
    assert sum(spent(state).calls for state in outcome.states.values()) == calls


def test_replies_that_the_journal_kept_are_no_work_of_this_refresh(lab: Lab) -> None:
    lab.refresh()
    calls = sum(lab.calls())
    for leaf, plan in lab.plans().items():
        (lab.home.leaf(leaf) / "state.json").unlink()
        for table in TABLES:
            plan.path(lab.home, table).unlink()
    assert f"teacher calls: {calls} of {calls} (done before)" in lab.refresh().said
    assert lab.calls() == (0, 0)


def test_a_second_refresh_calls_nobody_and_writes_no_table(lab: Lab) -> None:
    lab.refresh()
    lab.calls()
    before = lab.tables(KNOWLEDGE)
    outcome = lab.refresh()
    assert lab.calls() == (0, 0)
    assert lab.tables(KNOWLEDGE) == before
    assert {spent(state).calls for state in outcome.states.values()} == {0}


def test_only_the_leaves_asked_for_are_refreshed(lab: Lab) -> None:
    assert set(lab.refresh(FREEFORM).states) == {FREEFORM}
    assert find_stale_leaves(lab.home, lab.plans()) == [GROUNDED, KNOWLEDGE]


def test_the_same_taxonomy_gives_the_same_bytes_in_another_home(lab: Lab, tmp_path: Path) -> None:
    lab.refresh()
    other = lab.elsewhere(tmp_path / "other", teacher=ScriptedTeacher(identity="teacher", pace=lambda number: number % 7))
    other.refresh(plans=dict(reversed(other.plans().items())))
    for leaf in lab.plans():
        assert other.tables(leaf) == lab.tables(leaf)


def test_the_funnel_adds_up_to_the_tables(lab: Lab) -> None:
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


def test_a_failing_leaf_stops_no_other_and_its_record_counts_the_attempts(lab: Lab) -> None:
    lab.teacher.script = failing_on(GROUNDED)
    outcome = lab.refresh()
    assert set(outcome.states) == {KNOWLEDGE, FREEFORM}
    assert find_stale_leaves(lab.home, lab.plans()) == [GROUNDED]
    assert leaf_state(lab.home, GROUNDED) is None
    failure = outcome.failures[GROUNDED]
    assert (failure.error, failure.attempts, spent(failure).calls) == ("out of paper", 1, 0)
    assert lab.refresh().failures[GROUNDED].attempts == 2
    recorded = leaf_failure(lab.home, lab.plans()[GROUNDED])
    assert recorded is not None
    assert (recorded.plan, recorded.attempts) == (lab.plans()[GROUNDED].curated, 2)
    assert leaf_failure(lab.home, lab.plans()[FREEFORM]) is None


def test_a_success_clears_the_failure(lab: Lab) -> None:
    lab.teacher.script = failing_on(GROUNDED)
    lab.refresh()
    lab.teacher.script = copying
    assert set(lab.refresh(GROUNDED).states) == {GROUNDED}
    assert leaf_failure(lab.home, lab.plans()[GROUNDED]) is None
    assert find_stale_leaves(lab.home, lab.plans()) == []


def test_a_failed_refresh_keeps_the_last_good_tables(lab: Lab) -> None:
    good = lab.refresh(KNOWLEDGE).states[KNOWLEDGE]
    kept = read_rows(lab.plans()[KNOWLEDGE].path(lab.home, "curated"))
    edit_yaml(lab.flow / "flow.yaml", lambda file: file["start"].update(examples=2))
    lab.teacher.script = failing_on(KNOWLEDGE)
    assert KNOWLEDGE in lab.refresh(KNOWLEDGE).failures
    assert leaf_state(lab.home, KNOWLEDGE) == good
    assert read_rows(lab.home.leaf(KNOWLEDGE) / f"curated-{good.curated}.parquet") == kept


@pytest.mark.parametrize(
    ("error", "told"),
    [(TeacherError("no"), "no"), (RuntimeError("no"), "RuntimeError: no"), (ZeroDivisionError("no"), "ZeroDivisionError: no")],
)
def test_whatever_goes_wrong_in_a_leaf_is_its_outcome(lab: Lab, error: Exception, told: str) -> None:
    def script(request: Request) -> str:
        raise error

    lab.judge.script = script
    outcome = lab.refresh()
    assert {failure.error for failure in outcome.failures.values()} == {told}
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
    assert spent(lab.refresh(KNOWLEDGE).failures[KNOWLEDGE]).calls == survived
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
        assert failure.error.startswith("the budget budgets.teacher_calls is spent")
    while runs[-1].failures:
        assert len(runs) < 20
        runs.append(lab.refresh())
        made.append(sum(lab.calls()))
    assert sum(made) == everything
    assert made[:-1] == [9] * (len(made) - 1)
    assert find_stale_leaves(lab.home, lab.plans()) == []


def test_calls_under_way_when_the_budget_ends_are_paid_for_and_kept(lab: Lab) -> None:
    lab.teacher.pace = lambda number: 50
    lab.settings = lab.settings.model_copy(update={"budgets": BudgetSettings(teacher_calls=4)})
    assert spent(lab.refresh(KNOWLEDGE).failures[KNOWLEDGE]).calls == lab.teacher.finished == 4
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


def serving(asked: Asked) -> Answer:
    """Good replies by a server that does not count tokens."""
    messages = tuple(Message(**message) for message in asked.body["messages"])
    said = copying(Request(messages, asked.body["max_tokens"], asked.body["temperature"], asked.body["seed"]))
    assert isinstance(said, str)
    return Answer(said, usage={"prompt_tokens": None, "completion_tokens": None})


def refresh_from(lab: Lab, stub: StubEndpoint, **prices: float) -> Outcome:
    """Refresh the knowledge leaf with the stub as the teacher; the judge is scripted, and free."""
    endpoint = EndpointTeacherSettings(kind="endpoint", url=stub.url, model="strong", concurrency=1, **prices)
    lab.teacher = EndpointTeacher(endpoint)  # type: ignore[assignment]
    return lab.refresh(KNOWLEDGE)


NOTHING = [
    Answer(message={"content": None, "reasoning": "The user wants"}, finish="length"),
    Answer(message={"content": None, "refusal": "I cannot help with that."}),
    Answer("Question: Who kee", finish="content_filter"),
]


@pytest.mark.parametrize("nothing", NOTHING, ids=["thinking ate the length", "refusal", "filtered"])
def test_rows_that_the_teacher_gave_no_answer_for_are_counted_and_asked_for_again(lab: Lab, nothing: Answer) -> None:
    with StubEndpoint(lambda asked: nothing if len(stub.requests) <= 2 else serving(asked)) as stub:
        state = refresh_from(lab, stub).states[KNOWLEDGE]
        first = len(stub.requests)
        plan = lab.plans()[KNOWLEDGE]
        assert (state.funnel["no_reply"], state.funnel["kept"] > 0, spent(state).calls > 0) == (2, True, True)
        rejected = [row for row in read_rows(plan.path(lab.home, "rejected")) if row["rule"] == "no_reply"]
        assert all(row["reason"].startswith("the teacher gave no answer: ") for row in rejected)
        assert find_stale_leaves(lab.home, {KNOWLEDGE: plan}) == [KNOWLEDGE]
        failure = leaf_failure(lab.home, plan)
        assert failure and failure.error == f"the teacher gave no answer for 2 of {state.funnel['generated']} rows"

        again = refresh_from(lab, stub).states[KNOWLEDGE]
        assert len(stub.requests) == first + 2 == 2 + again.funnel["generated"]
        assert "no_reply" not in again.funnel and again.funnel["kept"] >= state.funnel["kept"]
        assert again.funnel["kept"] == len(read_rows(plan.path(lab.home, "curated")))
        assert find_stale_leaves(lab.home, {KNOWLEDGE: plan}) == [] and leaf_failure(lab.home, plan) is None
    assert _teacher_costs(lab.home, [KNOWLEDGE])["prompt_tokens"] == len(lab.judge.requests)  # none but the judge counts


def test_a_leaf_that_the_teacher_answers_nothing_for_failed_and_is_asked_again(lab: Lab) -> None:
    with StubEndpoint(lambda asked: NOTHING[0]) as stub:
        error = refresh_from(lab, stub).failures[KNOWLEDGE].error
        assert re.search(r"no answer for (\d+) of \1 rows; most often: the teacher gave no answer: ", error)
        stub.reply = serving
        assert refresh_from(lab, stub).states[KNOWLEDGE].funnel["kept"] > 0


def test_a_state_tells_the_tokens_and_the_money_of_its_calls(lab: Lab) -> None:
    with StubEndpoint(lambda asked: replace(serving(asked), usage={"prompt_tokens": 90, "completion_tokens": 7})) as stub:
        state = refresh_from(lab, stub, prompt_price=2.0, completion_price=4.0).states[KNOWLEDGE]
    took, by_teacher = spent(state), state.spent["generated"]
    assert took.prompt_tokens > took.calls > by_teacher.calls > 0 and took.completion_tokens > 0
    replies = [reply for _, reply in read_journal(lab.home.leaf(KNOWLEDGE) / "journal") if reply.money]
    paid = sum(reply.prompt_tokens * 2 + reply.completion_tokens * 4 for reply in replies) / 1_000_000
    assert took.money == by_teacher.money == pytest.approx(paid) and paid > 0, "the judge, which scores whole rows, is free"
    assert 0 < by_teacher.seconds < 60 and state.spent["judged"].calls == len(lab.judge.requests)


def test_one_passage_that_the_server_refuses_costs_its_rows_alone(lab: Lab) -> None:
    refused: dict[str, str] = {}

    def strict(asked: Asked) -> Answer | str:
        first = refused.setdefault("first", asked.last)
        return Answer(status=400, body="filtered") if asked.last == first else serving(asked)

    with StubEndpoint(strict) as stub:
        funnel = refresh_from(lab, stub).states[KNOWLEDGE].funnel
    assert 0 < funnel["no_reply"] < funnel["generated"] / 2 and funnel["kept"] > 0


def test_a_sign_in_page_is_one_error_after_one_call(lab: Lab) -> None:
    page = Answer(headers={"Content-Type": "text/html"}, body="<html>Sign in</html>")
    with StubEndpoint(lambda asked: page) as stub:
        assert "set teacher.url" in refresh_from(lab, stub).failures[KNOWLEDGE].error
        assert len(stub.requests) == 1
