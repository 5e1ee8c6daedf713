"""Judges are asked about known rows once, and gate only if they separate them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lab_pipeline.config.settings import BudgetSettings
from lab_pipeline.core.storage import read_rows
from lab_pipeline.flows.flow import Flow
from lab_pipeline.instructions.judge_calibration import separation
from lab_pipeline.instructions.plan import find_stale_leaves
from lab_pipeline.teacher.protocol import NO_ANSWER, Reply, Request
from lab_pipeline_tests.builders import KNOWLEDGE, edit_yaml
from lab_pipeline_tests.instructions.leaf_lab import Lab
from lab_pipeline_tests.scripted_teacher import copying, known_verdicts


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
    assert find_stale_leaves(lab.home, lab.plans()) == [KNOWLEDGE]
    lab.refresh(KNOWLEDGE)
    assert lab.calls() == (0, 1), "the other known rows are in the journal"
    edit_yaml(lab.flow / "faithful.yaml", lambda prompt: prompt[0]["each"][0].update(answer="In 1820."))
    lab.refresh(KNOWLEDGE)
    assert lab.calls() == (0, len(known_verdicts(lab.plans()[KNOWLEDGE].flow)) + rows)


def test_calls_about_known_rows_that_a_budget_cut_short_are_kept(lab: Lab) -> None:
    edit_yaml(lab.flow / "flow.yaml", lambda file: file["judges"][0].update(gates=True))
    known = len(known_verdicts(lab.plans()[KNOWLEDGE].flow))
    lab.settings = lab.settings.model_copy(update={"budgets": BudgetSettings(teacher_calls=5)})
    assert "budgets.teacher_calls is spent" in lab.refresh(KNOWLEDGE).failures[KNOWLEDGE].error
    assert lab.calls() == (0, 5)
    lab.settings = lab.settings.model_copy(update={"budgets": BudgetSettings()})
    lab.refresh(KNOWLEDGE)
    asked = [request.messages[-1].content for request in lab.judge.requests]
    assert sum(content in known_verdicts(lab.plans()[KNOWLEDGE].flow) for content in asked) == known - 5


def test_a_judge_that_gives_no_answer_about_a_known_row_is_measured_once_it_does(lab: Lab) -> None:
    edit_yaml(lab.flow / "flow.yaml", lambda file: file["judges"][0].update(gates=True))
    flow = lab.plans()[KNOWLEDGE].flow
    mute = next(iter(known_verdicts(flow)))
    lab.judge.script = lambda request: (
        Reply("", "stop", 1, 1, no_answer=f"{NO_ANSWER}: it refused")
        if request.messages[-1].content == mute
        else discerning(flow, DOUBTFUL)(request)
    )
    failure = lab.refresh(KNOWLEDGE).failures[KNOWLEDGE]
    assert "it refused (as judge faithful), asked about one of its known rows; mend the judge, or set gates" in failure.error
    assert separation(lab.home, flow, flow.file.judges[0], "judge") is None
    lab.calls()
    lab.judge.script = discerning(flow, Reply("", "stop", 1, 1, {"Yes": 0.9, "No": 0.1}))
    assert lab.refresh(KNOWLEDGE).states[KNOWLEDGE].funnel["kept"] > 0
    about = separation(lab.home, flow, flow.file.judges[0], "judge")
    assert about is not None and about["separates"]


def test_a_row_that_a_judge_gave_no_answer_about_is_rejected_and_judged_by_the_next_refresh(lab: Lab) -> None:
    whole = lab.refresh(KNOWLEDGE).states[KNOWLEDGE].funnel
    (refused, *_) = [request for request in lab.judge.requests if request.choices]
    other = lab.elsewhere(lab.home.root.parent / "other")
    lab.calls()

    def script(request: Request) -> str | Reply:
        if request.messages == refused.messages:
            return Reply("", "stop", 1, 1, no_answer=f"{NO_ANSWER}: it refused")
        return copying(request)

    other.judge.script = script
    outcome = other.refresh(KNOWLEDGE)
    assert outcome.states[KNOWLEDGE].funnel["no_reply"] == 1
    (rejected,) = [row for row in read_rows(other.plans()[KNOWLEDGE].path(other.home, "rejected")) if row["rule"] == "no_reply"]
    assert rejected["reason"] == f"{NO_ANSWER}: it refused (as judge faithful)"
    lab.calls()
    other.judge.script = copying
    assert other.refresh(KNOWLEDGE).states[KNOWLEDGE].funnel == whole
    assert lab.calls() == (0, 1)
