"""Grading answers against their references by a judge.

Every answer is read `REPEATS` times with the reference shown first and as often with the answer shown first, for judges
favour a place (Wang et al., *Large Language Models are not Fair Evaluators*, ACL 2024). Its score is the mean of both
orders, so that what a place is worth falls on all models alike; how far readings agree is reported beside it.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any

from lab_pipeline.flows.prompts import load_prompt, render_prompt
from lab_pipeline.progress import Progress, Say
from lab_pipeline.storage import digest
from lab_pipeline.teacher.protocol import Message, Reply, Request, Teacher, TeacherError

FILES = Path(__file__).parent / "judge"
"""The rubric as a prompt, and rows whose verdict is known."""
RUBRIC = load_prompt(FILES / "grade.yaml")
KNOWN_ROWS: list[dict[str, Any]] = [
    json.loads(line) for line in (FILES / "known_rows.jsonl").read_text(encoding="utf-8").splitlines()
]
"""Answers of our own, each `good` or not: `question`, `reference`, `answer`. Good and bad ones are of like lengths."""

VERDICTS = {"Right": 1.0, "Partly": 0.5, "Wrong": 0.0}
"""What each verdict scores. Their first letters differ, so the first token of a reply tells them apart."""
ORDERS = (("reference", "answer"), ("answer", "reference"))
REPEATS = 2
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
class Grade:
    """The readings of one answer in each of `ORDERS`, and how many replies were unreadable."""

    readings: tuple[list[Reading], list[Reading]]
    unreadable: int

    @property
    def scores(self) -> list[float]:
        """The mean score in each order that has a reading."""
        return [sum(reading.score for reading in order) / len(order) for order in self.readings if order]

    @property
    def score(self) -> float | None:
        """From 0, wrong, to 1, right; None unless both orders could be read."""
        return sum(self.scores) / len(ORDERS) if len(self.scores) == len(ORDERS) else None


def rubric_digest() -> str:
    """What verdicts depend on beside the judge."""
    return digest([RUBRIC, VERDICTS, ORDERS, REPEATS, SPARE, TEMPERATURE])


async def grade_answers(judge: Teacher, rows: list[dict[str, Any]], at_once: int, say: Say) -> list[Grade]:
    """Grades of rows with `question`, `reference`, `answer` and perhaps `context`; `at_once` is the number of answers under way.

    Raises:
        TeacherError: the judge gave no reply. No further answer is begun then, and those under way come to their end, so
            that a journal keeps what they cost.
    """
    progress = Progress("answers judged", len(rows), say)
    slots = asyncio.Semaphore(at_once)
    failures: list[TeacherError] = []

    async def one(row: dict[str, Any]) -> Grade | None:
        async with slots:
            if failures:
                return None
            try:
                grade = await _grade(judge, row)
            except TeacherError as error:
                failures.append(error)
                return None
            progress.advance()
            return grade

    grades = await asyncio.gather(*(one(row) for row in rows))
    if failures:
        raise failures[0]
    return [grade for grade in grades if grade]


def agreement(grades: list[Grade]) -> dict[str, Any]:
    """How far the readings agree, as shares; None where nothing can be compared.

    `alike`: answers whose readings all give one verdict. `repeats`: pairs of readings in the same order that do, averaged
    over answers; `orders`: pairs in different orders. Where `orders` is the lower one, places matter to the judge, and
    `order_shift` says which way: the mean score with the reference first minus that with the answer first.
    """
    graded = [grade for grade in grades if grade.score is not None]
    alike = [len({reading.verdict for order in grade.readings for reading in order}) == 1 for grade in graded]
    repeats = [_same(list(combinations(order, 2))) for grade in graded for order in grade.readings if len(order) > 1]
    return {
        "graded": len(graded),
        "not_graded": len(grades) - len(graded),
        "unreadable_replies": sum(grade.unreadable for grade in grades),
        "alike": _mean(alike),
        "repeats": _mean(repeats),
        "orders": _mean([_same(list(product(*grade.readings))) for grade in graded]),
        "order_shift": _mean([grade.scores[0] - grade.scores[1] for grade in graded]),
    }


async def _grade(judge: Teacher, row: dict[str, Any]) -> Grade:
    both = await asyncio.gather(*(_read_in_order(judge, _rendered(row, order)) for order in ORDERS), return_exceptions=True)
    for error in both:
        if isinstance(error, BaseException):
            raise error
    (first, failed), (second, failed_too) = both  # type: ignore[misc]
    return Grade((first, second), failed + failed_too)


def _rendered(row: dict[str, Any], order: tuple[str, str]) -> tuple[Message, ...]:
    texts = [{"title": title, "content": row[title]} for title in order]
    return render_prompt("judge/grade.yaml", RUBRIC, {"context": None, **row, "texts": texts})


async def _read_in_order(judge: Teacher, messages: tuple[Message, ...]) -> tuple[list[Reading], int]:
    """Readings by one prompt, and the number of unreadable replies. Each sample has its own seed, and so its own journal entry."""
    readings: list[Reading] = []
    for sample in range(REPEATS + SPARE):
        request = Request(messages, max_tokens=4, temperature=TEMPERATURE, seed=sample, choices=tuple(VERDICTS))
        reading = _read(await judge.reply(request))
        readings += [reading] if reading else []
        if len(readings) == REPEATS:
            return readings, sample + 1 - REPEATS
    return readings, REPEATS + SPARE - len(readings)


def _read(reply: Reply) -> Reading | None:
    """None if the reply tells no verdict. A judge without probabilities writes one token, which may be a verdict's beginning."""
    if reply.probabilities:
        verdict = max(reply.probabilities, key=reply.probabilities.__getitem__)
        return Reading(verdict, sum(share * VERDICTS[each] for each, share in reply.probabilities.items()))
    said = re.search(r"[^\W\d_]+", reply.text)
    for verdict, score in VERDICTS.items():
        if said and verdict.casefold().startswith(said[0].casefold()):
            return Reading(verdict, score)
    return None


def _same(pairs: list[tuple[Reading, Reading]]) -> float:
    return sum(one.verdict == other.verdict for one, other in pairs) / len(pairs)


def _mean(values: list[Any]) -> float | None:
    return sum(values) / len(values) if values else None
