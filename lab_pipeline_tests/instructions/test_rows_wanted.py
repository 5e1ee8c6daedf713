"""A leaf that wants a number of kept rows is asked about in rounds, until it has them or the bound on rounds is met."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab_pipeline.config.settings import RowsWantedSettings
from lab_pipeline.core.storage import read_rows
from lab_pipeline.instructions.plan import LeafState, find_stale_leaves, leaf_state
from lab_pipeline.reports.estimate import estimate
from lab_pipeline.reports.inspection import described_rejects
from lab_pipeline.reports.search import Query
from lab_pipeline.reports.status import leaf_summary
from lab_pipeline.teacher.protocol import NO_ANSWER, Reply, Request
from lab_pipeline_tests.builders import FREEFORM, GROUNDED, KNOWLEDGE
from lab_pipeline_tests.instructions.leaf_lab import TABLES, Lab, spent
from lab_pipeline_tests.scripted_teacher import ScriptedTeacher, copying

A_ROUND = 4
"""Rows of the freeform leaf in one round, all kept; each costs a question, an answer and a verdict."""


def want(lab: Lab, rows: int, rounds: int = 5, leaf: str = FREEFORM) -> None:
    wanted = RowsWantedSettings(leaves={leaf: rows}, rounds=rounds)
    lab.settings = lab.settings.model_copy(update={"rows_wanted": wanted})


def refreshed(lab: Lab) -> LeafState:
    return lab.refresh(FREEFORM).states[FREEFORM]


def test_a_leaf_is_asked_in_rounds_until_it_has_the_rows_that_it_wants(lab: Lab, tmp_path: Path) -> None:
    assert refreshed(lab).funnel["kept"] == A_ROUND
    other = lab.elsewhere(tmp_path / "other", teacher=ScriptedTeacher(identity="teacher", pace=lambda number: number % 7))
    lab.calls()
    want(lab, 2 * A_ROUND + 1)
    state = refreshed(lab)
    assert (state.funnel, state.rounds, state.shortfall) == ({"generated": 12, "kept": 12}, 3, None)
    assert sum(lab.calls()) == spent(state).calls == 2 * A_ROUND * 3, "the first round is in the journal"
    rows = read_rows(lab.plans()[FREEFORM].path(lab.home, "curated"))
    assert len({row["id"] for row in rows}) == len({row["question"] for row in rows}) == 12

    assert refreshed(lab).rounds == 3 and lab.calls() == (0, 0)
    want(other, 2 * A_ROUND + 1)
    other.refresh()
    assert other.tables(FREEFORM) == lab.tables(FREEFORM)


def test_the_bound_on_rounds_ends_it_and_people_are_told(lab: Lab) -> None:
    want(lab, 50, rounds=2)
    state = refreshed(lab)
    assert state.shortfall == "wanted 50 rows, kept 8 after 2 rounds"
    assert leaf_state(lab.home, FREEFORM) == state
    status = leaf_summary(lab.home, lab.snapshot, lab.plans(), set())
    assert status[FREEFORM]["problems"] == [state.shortfall] and status[FREEFORM]["status"] == "current"
    assert state.shortfall == described_rejects(lab.home, Query(leaf=FREEFORM))["shortfall"]
    assert find_stale_leaves(lab.home, lab.plans()) == [GROUNDED, KNOWLEDGE], "it is done"


def test_a_round_that_brings_no_new_row_is_the_last(lab: Lab) -> None:
    def same(request: Request) -> str | Reply:
        asks = request.messages[-1].content.startswith("Write a new exercise")
        return "Write a line about the lamp for the neighbour." if asks else copying(request)

    lab.teacher.script = same
    want(lab, 50)
    assert (refreshed(lab).funnel["kept"], refreshed(lab).rounds) == (1, 2)


@pytest.mark.parametrize("survived", [1, 9, 17, 22])
def test_after_a_crash_in_any_round_no_finished_call_is_made_again(lab: Lab, tmp_path: Path, survived: int) -> None:
    want(lab, 12)
    undisturbed = lab.elsewhere(tmp_path / "undisturbed")
    refreshed(undisturbed)
    everything, _ = lab.calls()

    def crashing(request: Request) -> str | Reply:
        if lab.teacher.finished == survived:
            raise RuntimeError("crash")
        return copying(request)

    lab.teacher.finished, lab.teacher.script = 0, crashing
    assert FREEFORM in lab.refresh(FREEFORM).failures
    lab.calls()
    lab.teacher.script = copying
    refreshed(lab)
    assert lab.calls()[0] == everything - survived
    assert lab.tables(FREEFORM) == undisturbed.tables(FREEFORM)


def test_lost_tables_and_states_are_made_again_from_the_journal(lab: Lab) -> None:
    want(lab, 9)
    state, before = refreshed(lab), lab.tables(FREEFORM)
    lab.calls()
    for lost in ("state.json", *(f"{table}-*" for table in TABLES)):
        for path in lab.home.leaf(FREEFORM).glob(lost):
            path.unlink()
        again = refreshed(lab)
        assert (again.rounds, again.funnel) == (state.rounds, state.funnel) and lab.tables(FREEFORM) == before
    assert lab.calls() == (0, 0)


def test_a_round_that_lacks_answers_is_asked_again_before_another_one(lab: Lab) -> None:
    def silent(request: Request) -> str | Reply:
        first = lab.teacher.requests[0]
        return Reply("", "stop", 1, 1, no_answer=f"{NO_ANSWER}: it refused") if request == first else copying(request)

    want(lab, 8)
    lab.teacher.script = silent
    state = refreshed(lab)
    assert (state.rounds, state.funnel["kept"]) == (1, 3)
    lab.teacher.script = copying
    assert (refreshed(lab).rounds, refreshed(lab).funnel["kept"]) == (2, 8)


def test_more_rows_cost_only_further_rounds_and_fewer_cost_nothing(lab: Lab) -> None:
    want(lab, 8)
    refreshed(lab)
    lab.calls()
    want(lab, 9)
    assert refreshed(lab).funnel["kept"] == 12 and sum(lab.calls()) == A_ROUND * 3
    want(lab, 2)
    assert refreshed(lab).funnel["kept"] == A_ROUND and lab.calls() == (0, 0)


def test_other_leaves_stay_as_they_are_and_the_longest_key_wins(lab: Lab) -> None:
    before = lab.plans()
    branch = FREEFORM.rpartition("/")[0]
    wanted = RowsWantedSettings(leaves={"compositional_skills": 30, f"{branch}/": 20})
    lab.settings = lab.settings.model_copy(update={"rows_wanted": wanted})
    after = lab.plans()
    assert after[KNOWLEDGE] == before[KNOWLEDGE]
    assert [after[leaf].rows_wanted for leaf in (KNOWLEDGE, GROUNDED, FREEFORM)] == [None, 30, 20]
    assert RowsWantedSettings(leaves={"know": 3}).of(KNOWLEDGE) is None


def test_an_estimate_counts_the_rounds_by_what_was_kept_before(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab_pipeline.reports.estimate.teacher_identities", lambda settings: ("teacher", "judge"))
    want(lab, 9)
    expected = estimate(lab.home, lab.settings).leaves[FREEFORM]
    assert expected.calls == 3 * A_ROUND * 3
    assert sum(lab.calls()) == 0
    refreshed(lab)
    assert sum(lab.calls()) == expected.calls
