from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lab_pipeline.evaluation.grading import Grade, agreement, grade_answers
from lab_pipeline.teacher.journal import Budget, BudgetSpent, JournaledTeacher
from lab_pipeline.teacher.protocol import Reply, Request, Teacher, TeacherError
from lab_pipeline_tests.evaluation.judges import judge, shown
from lab_pipeline_tests.scripted_teacher import ScriptedTeacher

ROW = {"question": "Who?", "reference": "Ida.", "answer": "It was Ida."}
ROWS = [{**ROW, "question": f"Who is number {number}?"} for number in range(20)]


def graded(by: Teacher, rows: list[dict[str, Any]], at_once: int = 4) -> list[Grade]:
    return asyncio.run(grade_answers(by, rows, at_once))


def test_each_answer_is_read_twice_in_both_orders() -> None:
    teacher = ScriptedTeacher(lambda request: "Right")
    (grade,) = graded(teacher, [{**ROW, "context": "A letter."}])
    assert grade.score == 1.0
    assert sorted((shown(request)[2], request.seed) for request in teacher.requests) == [
        (False, 0),
        (False, 1),
        (True, 0),
        (True, 1),
    ]
    for request in teacher.requests:
        assert request.choices == ("Right", "Partly", "Wrong") and 0 < request.temperature < 0.5
        for text in ("A letter.", *ROW.values()):
            assert text in request.messages[-1].content
        assert "Length, style" in request.messages[0].content


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("Right", 1.0),
        ("**Partly** right", 0.5),
        (" wrong.", 0.0),
        (Reply("Wrong", "stop", 1, 1, {"Right": 0.2, "Partly": 0.2, "Wrong": 0.6}), 0.3),
    ],
)
def test_a_reading_is_the_verdicts_score_or_its_expectation(reply: str | Reply, score: float) -> None:
    (grade,) = graded(ScriptedTeacher(lambda request: reply), [ROW])
    assert grade.score == pytest.approx(score)


def test_an_empty_answer_is_shown_as_nothing() -> None:
    teacher = ScriptedTeacher(lambda request: "Wrong")
    graded(teacher, [{**ROW, "answer": ""}])
    assert shown(teacher.requests[0])[1] == "(nothing)"


def test_an_unreadable_verdict_is_asked_for_again_and_counted() -> None:
    teacher = ScriptedTeacher(lambda request: "Hm" if request.seed == 0 else "Right")
    grades = graded(teacher, [ROW])
    assert grades[0].score == 1.0
    assert sorted(request.seed for request in teacher.requests) == [0, 0, 1, 1, 2, 2]
    assert (agreement(grades)["unreadable_replies"], agreement(grades)["not_graded"]) == (2, 0)


def test_an_answer_that_one_order_cannot_read_has_no_score() -> None:
    teacher = ScriptedTeacher(lambda request: "Right" if shown(request)[2] else "Well")
    grades = graded(teacher, [ROW])
    assert grades[0].score is None
    found = agreement(grades)
    assert (found["unreadable_replies"], found["graded"], found["not_graded"], found["alike"]) == (4, 0, 1, None)


def test_agreement_tells_a_favoured_place_from_chance() -> None:
    biased = agreement(graded(judge(lambda question, answer: 0.5, answer_first_bonus=0.5), ROWS))
    assert (biased["alike"], biased["repeats"], biased["orders"], biased["order_shift"]) == (0.0, 1.0, 0.0, -0.5)
    noisy = agreement(graded(judge(lambda question, answer: 0.5, noise=0.4), ROWS))
    assert noisy["repeats"] < 0.8 and abs(noisy["repeats"] - noisy["orders"]) < 0.25 and noisy["alike"] < 0.5
    sure = agreement(graded(judge(lambda question, answer: 1.0), ROWS))
    assert (sure["alike"], sure["repeats"], sure["orders"], sure["order_shift"]) == (1.0, 1.0, 1.0, 0.0)


def test_a_favoured_place_is_worth_the_same_to_every_answer() -> None:
    one, other = graded(
        judge(lambda question, answer: 0.5, answer_first_bonus=0.5), [ROW, {**ROW, "answer": "Ida, of course."}]
    )
    assert one.score == other.score == 0.75


def test_after_a_failure_nothing_more_is_begun_and_what_came_is_kept(tmp_path: Path) -> None:
    def failing(request: Request) -> str:
        if "number 7" in request.messages[-1].content:
            raise TeacherError("out of paper")
        return "Right"

    teacher = ScriptedTeacher(failing, pace=lambda number: 1 + number % 5)
    with pytest.raises(TeacherError, match="out of paper"):
        graded(JournaledTeacher(teacher, tmp_path), ROWS)
    assert teacher.finished < 40
    mended = ScriptedTeacher(lambda request: "Right")
    assert all(grade.score == 1.0 for grade in graded(JournaledTeacher(mended, tmp_path), ROWS))
    assert len(mended.requests) + teacher.finished == 4 * len(ROWS)


def test_a_spent_budget_ends_the_grading(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(lambda request: "Right")
    with pytest.raises(BudgetSpent):
        graded(JournaledTeacher(teacher, tmp_path, Budget(10)), ROWS)
    assert len(teacher.requests) == 10


def test_grades_do_not_depend_on_the_pace_of_replies() -> None:
    calm = graded(judge(lambda question, answer: 0.5, noise=0.4), ROWS)
    hasty = judge(lambda question, answer: 0.5, noise=0.4)
    hasty.pace = lambda number: number * 7 % 11
    assert graded(hasty, ROWS, at_once=9) == calm
