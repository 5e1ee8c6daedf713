"""Grading answers against their references by a judge.

Every answer is read `REPEATS` times with the reference shown first and as often with the answer shown first, for judges
favour a place (Wang et al., *Large Language Models are not Fair Evaluators*, ACL 2024). Its score is the mean of both
orders, so that what a place is worth falls on all models alike; how far readings agree is reported beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from statistics import fmean
from typing import Any

from lab_pipeline.core.storage import digest
from lab_pipeline.flows.prompts import load_prompt, render_prompt
from lab_pipeline.teacher.judging import read_verdict
from lab_pipeline.teacher.protocol import Request, Teacher, TeacherError

FILES = Path(__file__).parent / "judge"
"""The rubric as a prompt, and rows whose verdict is known."""

RUBRIC = load_prompt(FILES / "grade.yaml")

VERDICTS = {"Right": 1.0, "Partly": 0.5, "Wrong": 0.0}
"""What each verdict scores. Their first letters differ, so the first token of a reply tells their probabilities apart."""
ORDERS = (("reference", "answer"), ("answer", "reference"))
REPEATS = 2
CALLS = len(ORDERS) * REPEATS
"""What an answer costs whose verdicts can all be read."""
SPARE = 2
"""Further readings of an order whose replies could not be read."""
TEMPERATURE = 0.3
"""Repeated readings show how sure a judge is; with a higher one they would show the sampling."""


@dataclass(frozen=True)
class Reading:
    verdict: str
    score: float
    """Expected score over the verdicts where the judge gives probabilities, else the verdict's own."""


@dataclass(frozen=True)
class Readings:
    """What the judge said of one answer in one order, and how many of its replies told no verdict."""

    found: list[Reading]
    unreadable: int


@dataclass(frozen=True)
class Grade:
    """One answer, read with the reference first and with the answer first."""

    reference_first: Readings
    answer_first: Readings

    @property
    def orders(self) -> tuple[Readings, Readings]:
        return self.reference_first, self.answer_first

    @property
    def scores(self) -> list[float]:
        """The mean score of each order that could be read."""
        return [fmean(reading.score for reading in order.found) for order in self.orders if order.found]

    @property
    def score(self) -> float | None:
        """From 0, wrong, to 1, right; None unless both orders could be read."""
        return fmean(self.scores) if all(order.found for order in self.orders) else None


def rubric_digest() -> str:
    """What verdicts depend on beside the judge."""
    return digest([RUBRIC, VERDICTS, ORDERS, REPEATS, SPARE, TEMPERATURE])


async def grade_answers(judge: Teacher, rows: list[dict[str, Any]], at_once: int) -> list[Grade]:
    """Grades of rows with `question`, `reference`, `answer` and perhaps `context`; `at_once` is the number of calls under way.

    Raises:
        TeacherError: the judge gave no reply. No further answer is begun then, and calls under way come to their end, so
            that a journal keeps what they cost.
    """
    slots = asyncio.Semaphore(at_once)
    failures: list[TeacherError] = []

    async def read(row: dict[str, Any], order: tuple[str, str]) -> Readings:
        async with slots:
            if failures:
                return Readings([], 0)
            try:
                return await _read_in_order(judge, row, order)
            except TeacherError as error:
                failures.append(error)
                return Readings([], 0)

    async def grade(row: dict[str, Any]) -> Grade:
        return Grade(*await asyncio.gather(*(read(row, order) for order in ORDERS)))

    grades = await asyncio.gather(*(grade(row) for row in rows))
    if failures:
        raise failures[0]
    return grades


def agreement(grades: list[Grade]) -> dict[str, Any]:
    """How far the readings agree, as shares; None where nothing can be compared.

    `alike`: answers whose readings all give one verdict. `repeats`: pairs of readings in the same order that do, averaged
    over answers; `orders`: pairs in different orders. Where `orders` is the lower one, places matter to the judge, and
    `order_shift` says which way: the mean score with the reference first minus that with the answer first.
    """
    graded = [grade for grade in grades if grade.score is not None]
    alike = [len({reading.verdict for order in grade.orders for reading in order.found}) == 1 for grade in graded]
    repeats = [_same(combinations(order.found, 2)) for grade in graded for order in grade.orders if len(order.found) > 1]
    orders = [_same(product(grade.reference_first.found, grade.answer_first.found)) for grade in graded]
    shifts = [one - other for one, other in (grade.scores for grade in graded)]
    return {
        "graded": len(graded),
        "not_graded": len(grades) - len(graded),
        "unreadable_replies": sum(order.unreadable for grade in grades for order in grade.orders),
        "alike": _mean(alike),
        "repeats": _mean(repeats),
        "orders": _mean(orders),
        "order_shift": _mean(shifts),
    }


async def _read_in_order(judge: Teacher, row: dict[str, Any], order: tuple[str, str]) -> Readings:
    """Each sample has its own seed, and so its own entry in a journal."""
    texts = [{"title": title, "content": row[title]} for title in order]
    messages = render_prompt("judge/grade.yaml", RUBRIC, {"context": None, **row, "texts": texts})
    found: list[Reading] = []
    sample = 0
    while len(found) < REPEATS and sample < REPEATS + SPARE:
        request = Request(messages, max_tokens=4, temperature=TEMPERATURE, seed=sample, choices=tuple(VERDICTS))
        score, verdict = read_verdict(VERDICTS, await judge.reply(request))
        found += [] if score is None else [Reading(verdict, score)]
        sample += 1
    return Readings(found, unreadable=sample - len(found))


def _same(pairs: Iterable[tuple[Reading, Reading]]) -> float:
    alike = [one.verdict == other.verdict for one, other in pairs]
    return fmean(alike)


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
