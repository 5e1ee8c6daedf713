from __future__ import annotations

import asyncio
import re
from collections import Counter

import pytest

from lab_pipeline.core.home import Home
from lab_pipeline.evaluation.grading import grade_answers
from lab_pipeline.evaluation.known_rows import KNOWN_ROWS, judge_known_rows, separation
from lab_pipeline.teacher.journal import JournaledTeacher
from lab_pipeline.teacher.judging import area_under_curve
from lab_pipeline.teacher.protocol import Reply, Request
from lab_pipeline_tests.evaluation.judges import judge, known_worth, shown
from lab_pipeline_tests.scripted_teacher import ScriptedTeacher

GOOD = [row for row in KNOWN_ROWS if row["good"]]
BAD = [row for row in KNOWN_ROWS if not row["good"]]


def separated(by: ScriptedTeacher) -> dict:
    return separation(asyncio.run(grade_answers(by, KNOWN_ROWS, 8)))


def test_known_rows_are_enough_and_well_formed() -> None:
    assert len(GOOD) == len(BAD) >= 20
    assert {frozenset(row) for row in KNOWN_ROWS} == {frozenset(["question", "reference", "answer", "good"])}
    assert max(Counter((row["question"], row["answer"]) for row in KNOWN_ROWS).values()) == 1
    assert all(row["answer"].strip() and row["reference"].strip() for row in KNOWN_ROWS)


def test_neither_length_nor_shared_words_tell_good_rows_from_bad_ones() -> None:
    def words(text: str) -> set[str]:
        return set(re.findall(r"\w+", text.casefold()))

    def shared(row: dict) -> float:
        answer, reference = words(row["answer"]), words(row["reference"])
        return len(answer & reference) / len(answer | reference)

    for value in (lambda row: len(row["answer"]), lambda row: len(row["answer"].split()), shared):
        area, _ = area_under_curve([value(row) for row in GOOD], [value(row) for row in BAD])
        assert 0.35 < area < 0.65


@pytest.mark.parametrize(
    ("by", "holds"),
    [
        (judge(), True),
        (judge(probabilities=True), True),
        (judge(answer_first_bonus=0.5), True),
        (judge(noise=0.3), True),
        (judge(lambda question, answer: 0.5, noise=0.5), False),
        (judge(lambda question, answer: 0.0, word_bonus=0.2), False),
        (ScriptedTeacher(lambda request: "Right"), False),
        (ScriptedTeacher(lambda request: "As a judge"), False),
    ],
)
def test_a_judge_holds_if_it_tells_good_from_bad(by: ScriptedTeacher, holds: bool) -> None:
    found = separated(by)
    assert found["separates"] == holds == (found["area"] >= 0.9), found
    assert found["rows"] == len(KNOWN_ROWS)


@pytest.mark.parametrize("silent_on", [True, False])
def test_rows_that_cannot_be_read_count_against_the_judge(silent_on: bool) -> None:
    honest = judge()

    def often_silent(request: Request) -> str | Reply:
        return "Hm" if known_worth(*shown(request)[:2]) == silent_on else honest.script(request)

    found = separated(ScriptedTeacher(often_silent))
    assert found["agreement"]["not_graded"] == len(KNOWN_ROWS) / 2
    assert found["area"] == 0.5 and not found["separates"]


def test_a_judge_is_asked_once_by_one_rubric(tmp_path, monkeypatch) -> None:
    home, teacher = Home.open(tmp_path), JournaledTeacher(judge(), tmp_path / "journal")

    def asked() -> dict:
        return asyncio.run(judge_known_rows(home, teacher, 8, lambda text: None))

    first = asked()
    assert asked() == first and teacher.calls == 4 * len(KNOWN_ROWS)
    monkeypatch.setattr("lab_pipeline.evaluation.known_rows.rubric_digest", lambda: "another rubric")
    asked()
    assert teacher.recalled == 4 * len(KNOWN_ROWS)
