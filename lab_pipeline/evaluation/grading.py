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
"""Folder with the rubric, which is a prompt, and with answers whose verdict is known."""

RUBRIC = load_prompt(FILES / "grade.yaml")

VERDICTS = {"Right": 1.0, "Partly": 0.5, "Wrong": 0.0}
"""Score of each verdict. The verdicts' first letters differ, so the probabilities of a reply's first token tell them apart."""

Order = tuple[Literal["reference", "answer"], Literal["reference", "answer"]]
ORDERS: tuple[Order, Order] = (("reference", "answer"), ("answer", "reference"))
REPEATS = 2
CALLS = len(ORDERS) * REPEATS
"""Calls for one answer, if every reply can be read."""
SPARE = 2
"""Calls that one order may take beyond `REPEATS`, to replace replies that cannot be read."""
TEMPERATURE = 0.3
"""Temperature at which the judge is asked: low, so that repeated readings show how sure it is, not how it is sampled."""


class GradableAnswer(TypedDict):
    """An answer to be graded against its reference."""

    question: str
    reference: str
    answer: str
    context: NotRequired[str | None]


@dataclass(frozen=True)
class Reading:
    """One reply of the judge with a readable verdict."""

    verdict: str
    score: float
    """Mean of the verdicts' scores, weighted by the judge's probabilities; if it gives none, the score of this verdict."""


@dataclass(frozen=True)
class Readings:
    """The readable verdicts on one answer in one order, in the order of the calls, and the number of unreadable replies."""

    found: list[Reading]
    unreadable: int


@dataclass(frozen=True)
class Grade:
    """All readings of one answer: some with the reference first, and some with the answer first."""

    reference_first: Readings
    answer_first: Readings

    @property
    def orders(self) -> tuple[Readings, Readings]:
        return self.reference_first, self.answer_first

    @property
    def scores(self) -> list[float]:
        """Return the mean score of each order in which the answers were shown, without orders that lack a readable verdict."""
        return [fmean(reading.score for reading in order.found) for order in self.orders if order.found]

    @property
    def score(self) -> float | None:
        """Mean over both orders, from 0 (wrong) to 1 (right); None unless each order has a readable verdict."""
        return fmean(self.scores) if all(order.found for order in self.orders) else None


def rubric_digest() -> str:
    """Fingerprint what verdicts depend on besides the judge's model: the rubric, its verdicts, and how the judge is asked."""
    return digest([RUBRIC, VERDICTS, ORDERS, REPEATS, SPARE, TEMPERATURE])


async def grade_answers(judge: Teacher, rows: Sequence[GradableAnswer], at_once: int) -> list[Grade]:
    """Let the judge read each answer in both orders, with at most `at_once` calls under way; return the grades in their order.

    Raises:
        TeacherError: a request to the judge failed, or the budget of calls is spent. Answers that wait are then not read any
            more; readings under way are finished, so that a journal keeps their replies.
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
    """Measure how far the readings of an answer agree, over all answers with a score; None where nothing can be compared.

    `alike` is the share of answers whose readings all give one verdict. `repeats` is the share of agreeing pairs among pairs
    of readings in the same order, averaged over answers, and `orders` the same for pairs in different orders. If `orders` is
    lower, the judge has a position bias, and `order_shift` shows its direction: the mean score with the reference first minus
    the mean score with the answer first. Answers without a score and unreadable replies are counted.
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
    """Ask for verdicts in one order until `REPEATS` can be read, with at most `SPARE` calls more.

    Each call has its own seed, and so its own entry in a journal.
    """
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
