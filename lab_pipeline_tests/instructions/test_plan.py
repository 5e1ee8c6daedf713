from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lab_pipeline.config.settings import SensorSettings
from lab_pipeline.core.storage import read_json, read_rows, write_json
from lab_pipeline.flows.flow import FlowError
from lab_pipeline.instructions.plan import Backlog, backlog, find_stale_leaves, leaf_failure, leaf_state
from lab_pipeline.teacher.spending import Spent
from lab_pipeline_tests.builders import FREEFORM, GROUNDED, KNOWLEDGE, edit_yaml, rule
from lab_pipeline_tests.instructions.leaf_lab import TABLES, Lab, failing_on
from lab_pipeline_tests.scripted_teacher import copying


def test_a_changed_list_of_rules_curates_again_without_a_call(lab: Lab) -> None:
    first = lab.refresh(KNOWLEDGE).states[KNOWLEDGE].funnel
    before = lab.tables(KNOWLEDGE)
    lab.calls()
    edit_yaml(lab.flow / "flow.yaml", lambda file: file["rules"].remove(rule(file, "duplicate")))
    second = lab.refresh(KNOWLEDGE).states[KNOWLEDGE].funnel
    assert second["kept"] == first["kept"] + first["duplicate"] and "duplicate" not in second
    assert lab.calls() == (0, 0)
    after = lab.tables(KNOWLEDGE)
    assert [table for table in TABLES if after[table] != before[table]] == ["curated", "rejected"]


def test_a_release_with_other_rules_curates_again_without_a_call(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.refresh()
    lab.calls()
    monkeypatch.setattr("lab_pipeline.instructions.plan.CURATION_VERSION", -1)
    assert find_stale_leaves(lab.home, lab.plans()) == sorted(lab.plans())
    lab.refresh()
    assert lab.calls() == (0, 0)
    assert find_stale_leaves(lab.home, lab.plans()) == []


def test_states_and_failures_of_earlier_releases_are_read(lab: Lab) -> None:
    lab.teacher.script = failing_on(GROUNDED)
    lab.refresh()
    for leaf, name in ((KNOWLEDGE, "state.json"), (GROUNDED, "failure.json")):
        path = lab.home.leaf(leaf) / name
        stored = {key: value for key, value in read_json(path).items() if key not in ("spent", "rows_wanted", "rounds")}
        write_json(path, {**stored, "teacher_calls": 7})
    state = leaf_state(lab.home, KNOWLEDGE)
    failure = leaf_failure(lab.home, lab.plans()[GROUNDED])
    assert state and failure and state.spent == failure.spent == {"generated": Spent(calls=7)}
    assert find_stale_leaves(lab.home, lab.plans()) == [GROUNDED]


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
    assert find_stale_leaves(lab.home, lab.plans()) == [KNOWLEDGE]
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
    assert find_stale_leaves(lab.home, lab.plans()) == [KNOWLEDGE]


def test_a_changed_seed_leaves_other_leaves_alone(lab: Lab) -> None:
    lab.refresh()
    edit_yaml(
        lab.taxonomy / FREEFORM / "qna.yaml",
        lambda file: [seed.update(answer="Another answer.") for seed in file["seed_examples"]],
    )
    lab.look_again()
    assert find_stale_leaves(lab.home, lab.plans()) == [FREEFORM]


def test_a_leaf_that_is_broken_has_no_plan_and_one_that_only_changed_hands_is_not_behind(lab: Lab) -> None:
    lab.refresh()
    edit_yaml(lab.taxonomy / FREEFORM / "qna.yaml", lambda file: file.update(seed_examples=[]))
    edit_yaml(lab.taxonomy / GROUNDED / "qna.yaml", lambda file: file.update(created_by="somebody else"))
    lab.look_again()
    assert set(lab.plans()) == {GROUNDED, KNOWLEDGE}
    assert find_stale_leaves(lab.home, lab.plans()) == []


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
    assert behind(10_000) == Backlog([], {}, {GROUNDED: "out of paper"})
    assert "needs attention: out of paper" in str(behind(0))
    edit_yaml(lab.flow / "flow.yaml", lambda file: file["start"].update(examples=2))
    assert behind(0).left == {GROUNDED: "out of paper"}, "another leaf's flow"
    lab.teacher.script = copying
    lab.refresh(GROUNDED)
    assert GROUNDED not in behind(0).due and behind(0).left == {}


def test_a_leaf_whose_seeds_break_a_rule_says_which_and_why_and_keeps_such_rows(lab: Lab) -> None:
    assert lab.refresh(FREEFORM).states[FREEFORM].rules_off == {}
    asks = [f"[INST] Write a line about the lamp of {name}." for name in ("Anna", "Bea", "Carl", "Dora", "Emil")]

    def marked(file: dict[str, Any]) -> None:
        for seed, asked in zip(file["seed_examples"], asks, strict=True):
            seed["question"] = asked

    edit_yaml(lab.taxonomy / FREEFORM / "qna.yaml", marked)
    lab.look_again()
    off = lab.refresh(FREEFORM).states[FREEFORM].rules_off
    seeds = len(read_json(lab.home.leaf_source(lab.plans()[FREEFORM].source))["seeds"])
    assert off["leaked_tag"] == f"{seeds} of {seeds} seed examples break it"
    assert leaf_state(lab.home, FREEFORM).rules_off == off
