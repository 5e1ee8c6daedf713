"""Grade answers against their references by a judge.

Judges favour a position (Wang et al., *Large Language Models are not Fair Evaluators*, ACL 2024). So every answer is read
`REPEATS` times with the reference first and as often with the answer first, and its score is the mean of both orders:
position bias then affects all models equally. How far the readings agree is reported beside the score.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from statistics import fmean
from typing import Literal, NotRequired, TypedDict

from lab_pipeline.core.evaluation import Agreement
from lab_pipeline.core.storage import digest
from lab_pipeline.flows.prompts import load_prompt, render_prompt
from lab_pipeline.teacher.judging import read_verdict
from lab_pipeline.teacher.protocol import Request, Teacher, TeacherError

FILES = Path(__file__).parent / "judge"
"""The rubric as a prompt, and rows whose verdict is known."""

RUBRIC = load_prompt(FILES / "grade.yaml")

VERDICTS = {"Right": 1.0, "Partly": 0.5, "Wrong": 0.0}
"""Score of each verdict. Their first letters differ, so the first token of a reply tells their probabilities apart."""

Order = tuple[Literal["reference", "answer"], Literal["reference", "answer"]]
ORDERS: tuple[Order, Order] = (("reference", "answer"), ("answer", "reference"))
REPEATS = 2
CALLS = len(ORDERS) * REPEATS
"""Calls for one answer, if every reply can be read."""
SPARE = 2
"""Further readings of an order when replies cannot be read."""
TEMPERATURE = 0.3
"""Low, so that repeated readings show how sure the judge is, not how it is sampled."""


class GradableAnswer(TypedDict):
    """An answer to be graded against its reference."""

    question: str
    reference: str
    answer: str
    context: NotRequired[str | None]


@dataclass(frozen=True)
class Reading:
    """One verdict of the judge."""

    verdict: str
    score: float
    """Expected score over the verdicts where the judge gives probabilities, else the verdict's own."""


@dataclass(frozen=True)
class Readings:
    """Verdicts on one answer in one order, and the number of replies without a readable verdict."""

    found: list[Reading]
    unreadable: int


@dataclass(frozen=True)
class Grade:
    """Readings of one answer with the reference first and with the answer first."""

    reference_first: Readings
    answer_first: Readings

    @property
    def orders(self) -> tuple[Readings, Readings]:
        return self.reference_first, self.answer_first

    @property
    def scores(self) -> list[float]:
        """Mean score of each order that could be read."""
        return [fmean(reading.score for reading in order.found) for order in self.orders if order.found]

    @property
    def score(self) -> float | None:
        """From 0, wrong, to 1, right; None unless both orders could be read."""
        return fmean(self.scores) if all(order.found for order in self.orders) else None


def rubric_digest() -> str:
    """Fingerprint what verdicts depend on beside the judge."""
    return digest([RUBRIC, VERDICTS, ORDERS, REPEATS, SPARE, TEMPERATURE])


async def grade_answers(judge: Teacher, rows: Sequence[GradableAnswer], at_once: int) -> list[Grade]:
    """Grade answers, with at most `at_once` calls under way.

    Raises:
        TeacherError: the judge gave no reply. No further call is begun then, and calls under way are finished, so that a
            journal keeps their replies.
    """
    slots = asyncio.Semaphore(at_once)
    failures: list[TeacherError] = []

    async def read(row: GradableAnswer, order: Order) -> Readings:
        async with slots:
            try:
                if not failures:
                    return await _read_in_order(judge, row, order)
            except TeacherError as error:
                failures.append(error)
        return Readings([], 0)

    async def grade(row: GradableAnswer) -> Grade:
        return Grade(*await asyncio.gather(*(read(row, order) for order in ORDERS)))

    grades = await asyncio.gather(*(grade(row) for row in rows))
    if failures:
        raise failures[0]
    return grades


def agreement(grades: Sequence[Grade]) -> Agreement:
    """Measure how far the readings agree, as shares; None where nothing can be compared.

    `alike` is the share of answers whose readings all give one verdict. `repeats` is the share of pairs of readings in the
    same order that do, averaged over answers, and `orders` that of pairs in different orders. If `orders` is lower, the judge
    has a position bias, and `order_shift` shows its direction: the mean score with the reference first minus that with the
    answer first.
    """
    graded = [grade for grade in grades if grade.score is not None]
    alike = [len({reading.verdict for order in grade.orders for reading in order.found}) == 1 for grade in graded]
    repeats = [_agreeing(combinations(order.found, 2)) for grade in graded for order in grade.orders if len(order.found) > 1]
    orders = [_agreeing(product(grade.reference_first.found, grade.answer_first.found)) for grade in graded]
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


async def _read_in_order(judge: Teacher, row: GradableAnswer, order: Order) -> Readings:
    """Ask for verdicts in one order; each sample has its own seed, and so its own entry in a journal."""
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


def _agreeing(pairs: Iterable[tuple[Reading, Reading]]) -> float:
    return fmean(one.verdict == other.verdict for one, other in pairs)


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
