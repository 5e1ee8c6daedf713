from __future__ import annotations

import asyncio
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_pipeline.evaluation.grading import grade_answers
from lab_pipeline.evaluation.known_rows import KNOWN_ROWS, area_under_curve, judge_known_rows, separation
from lab_pipeline.storage import Home
from lab_pipeline.teacher.protocol import Reply, Request
from lab_pipeline_tests.evaluation.judges import judge, known_worth, shown
from lab_pipeline_tests.scripted_teacher import ScriptedTeacher

GOOD = [row for row in KNOWN_ROWS if row["good"]]
BAD = [row for row in KNOWN_ROWS if not row["good"]]


def separated(by: ScriptedTeacher) -> dict:
    return separation(asyncio.run(grade_answers(by, KNOWN_ROWS, 8, lambda text: None)))


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
    assert found["holds"] == holds == (found["area"] >= 0.9), found
    assert found["rows"] == len(KNOWN_ROWS)


@pytest.mark.parametrize("silent_on", [True, False])
def test_rows_that_cannot_be_read_count_against_the_judge(silent_on: bool) -> None:
    honest = judge()

    def often_silent(request: Request) -> str | Reply:
        return "Hm" if known_worth(*shown(request)[:2]) == silent_on else honest.script(request)

    found = separated(ScriptedTeacher(often_silent))
    assert found["agreement"]["not_graded"] == len(KNOWN_ROWS) / 2
    assert found["area"] == 0.5 and not found["holds"]


def test_a_judge_is_asked_once_by_one_rubric(tmp_path, monkeypatch) -> None:
    home, teacher = Home.open(tmp_path), judge()

    def asked() -> dict:
        return asyncio.run(judge_known_rows(home, teacher, 8, lambda text: None))

    first = asked()
    assert asked() == first and len(teacher.requests) == 4 * len(KNOWN_ROWS)
    monkeypatch.setattr("lab_pipeline.evaluation.known_rows.rubric_digest", lambda: "another rubric")
    asked()
    assert len(teacher.requests) == 8 * len(KNOWN_ROWS)


def test_the_area_counts_pairs_and_ties_half() -> None:
    assert area_under_curve([1.0, 1.0], [0.0, 0.0])[0] == 1.0
    assert area_under_curve([1.0, 0.0], [1.0, 0.0])[0] == 0.5
    assert area_under_curve([1.0, 0.5], [0.5, 0.0])[0] == 0.875
    assert area_under_curve([0.0], [1.0])[0] == 0.0


def test_a_perfect_separation_of_few_rows_is_not_certain() -> None:
    low, high = area_under_curve([1.0] * 26, [0.0] * 26)[1]
    assert 0.85 < low < 0.95 and high == 1.0
    assert area_under_curve([1.0] * 5, [0.0] * 5)[1][0] < low


def test_the_interval_is_that_of_hanley_and_mcneil_near_its_middle() -> None:
    random_like = [number * 37 % 100 for number in range(200)]
    area, (low, high) = area_under_curve([value + 15.0 for value in random_like[:100]], [float(v) for v in random_like[100:]])
    by_good, by_bad = area / (2 - area), 2 * area**2 / (1 + area)
    error = ((area * (1 - area) + 99 * (by_good - area**2) + 99 * (by_bad - area**2)) / 100**2) ** 0.5
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.1)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_the_area_lies_in_its_interval(good: list[float], bad: list[float]) -> None:
    area, (low, high) = area_under_curve(good, bad)
    assert 0 <= low <= area <= high <= 1
