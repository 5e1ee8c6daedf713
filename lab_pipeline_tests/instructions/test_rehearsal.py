from __future__ import annotations

from typing import Any

import pytest

from lab_pipeline.core.storage import read_json, read_rows
from lab_pipeline.flows.flow import load_flow, shipped_flows
from lab_pipeline.instructions.rehearsal import TURN_TOKENS, Rehearsed, Rehearser, expected_calls, rehearse
from lab_pipeline.taxonomy.documents.passages import estimated_tokens
from lab_pipeline.teacher.journal import read_journal
from lab_pipeline_tests.builders import FREEFORM, GROUNDED, KNOWLEDGE
from lab_pipeline_tests.instructions.leaf_lab import Lab
from lab_pipeline_tests.instructions.test_generate import source

NOTHING = Rehearsed(0, 0, 0)


def rehearsed(lab: Lab, leaf: str, judging_only: bool = False) -> tuple[Rehearsed, Rehearsed]:
    plan = lab.plans()[leaf]
    models = Rehearser("teacher", "judge", estimated_tokens, dict(read_journal(lab.home.leaf(leaf) / "journal")))
    generated = read_rows(plan.path(lab.home, "generated")) if judging_only else None
    return rehearse(read_json(lab.home.leaf_source(plan.source)), plan.flow, lab.settings.seed, models, generated)


@pytest.mark.parametrize("leaf", [KNOWLEDGE, GROUNDED, FREEFORM])
def test_a_rehearsal_counts_the_calls_and_about_the_tokens_that_a_refresh_takes(lab: Lab, leaf: str) -> None:
    written, judged = rehearsed(lab, leaf)
    lab.refresh(leaf)
    known = lab.plans()[leaf].flow
    turns = [message.content for request in lab.teacher.requests for message in request.messages]
    prompts = sum(map(estimated_tokens, turns)) + TURN_TOKENS * len(turns)
    calls, verdicts = lab.calls()
    calibration = sum(len(rows) for judge in known.file.judges if judge.gates for rows in known.known_rows(judge))
    assert calls == pytest.approx(written.calls, rel=0.15)
    assert verdicts - calibration <= judged.calls
    assert prompts == pytest.approx(written.prompt_tokens, rel=0.25)


def test_what_the_journal_answers_costs_nothing(lab: Lab) -> None:
    written, judged = rehearsed(lab, KNOWLEDGE)
    assert written.calls > 0 and judged.calls > 0 and written.completion_tokens > 0
    lab.refresh(KNOWLEDGE)
    assert rehearsed(lab, KNOWLEDGE) == (NOTHING, NOTHING)
    assert rehearsed(lab, KNOWLEDGE, judging_only=True) == (NOTHING, NOTHING)


def test_rows_that_are_there_are_only_judged(lab: Lab) -> None:
    lab.refresh(KNOWLEDGE)
    for segment in (lab.home.leaf(KNOWLEDGE) / "journal").glob("*.jsonl"):
        segment.unlink()
    written, judged = rehearsed(lab, KNOWLEDGE, judging_only=True)
    assert written == NOTHING and judged.calls > 0 and judged.completion_tokens == judged.calls


@pytest.mark.parametrize("flow", shipped_flows())
def test_the_expected_calls_are_those_of_a_rehearsal(flow: str) -> None:
    known = load_flow(flow)
    leaf: Any = source(known.kind)
    models = Rehearser("teacher", "judge", len)
    assert expected_calls(leaf, known, 17) == pytest.approx(
        sum(each.calls for each in rehearse(leaf, known, 17, models)), rel=0.1
    )


def test_of_rows_that_are_there_verdicts_alone_are_expected(lab: Lab) -> None:
    lab.refresh(KNOWLEDGE)
    plan = lab.plans()[KNOWLEDGE]
    rows = read_rows(plan.path(lab.home, "generated"))
    leaf = read_json(lab.home.leaf_source(plan.source))
    whole = sum(row["fault"] is None for row in rows)
    assert expected_calls(leaf, plan.flow, lab.settings.seed, rows) == whole * len(plan.flow.file.judges) > 0
