"""Test whether a judge may decide: it must tell good from bad among answers whose verdict is known."""

import json
from collections.abc import Sequence

from lab_pipeline.core.evaluation import KnownSeparation
from lab_pipeline.core.home import Home
from lab_pipeline.core.progress import Progress, Say
from lab_pipeline.core.storage import digest, read_json, write_json
from lab_pipeline.evaluation.grading import CALLS, FILES, GradableAnswer, Grade, agreement, grade_answers, rubric_digest
from lab_pipeline.teacher.journal import Counted, JournaledTeacher
from lab_pipeline.teacher.judging import known_separation


class KnownRow(GradableAnswer):
    """An answer that is known to be good or bad, to test a judge with."""

    good: bool


KNOWN_ROWS: list[KnownRow] = [
    json.loads(line) for line in (FILES / "known_rows.jsonl").read_text(encoding="utf-8").splitlines()
]
"""Good and bad answers, written for this project; neither length nor words shared with the reference tell which are which."""


async def judge_known_rows(home: Home, judge: JournaledTeacher, at_once: int, say: Say) -> KnownSeparation:
    """Return how well this judge separates the good rows of `KNOWN_ROWS` from the bad ones.

    The first call has the judge grade the rows and stores the result; later calls with the same judge, rubric and rows read it.

    Raises:
        TeacherError: a request to the judge failed, or the budget of calls is spent.
    """
    path = home.evaluations / "judge" / f"known-rows-{digest([judge.identity, rubric_digest(), KNOWN_ROWS])}.json"
    if not path.exists():
        counted = Counted(judge, Progress("calls about known rows", len(KNOWN_ROWS) * CALLS, say))
        write_json(path, separation(await grade_answers(counted, KNOWN_ROWS, at_once)))
    return read_json(path)


def separation(grades: Sequence[Grade]) -> KnownSeparation:
    """Measure how well a judge's grades, given in the order of `KNOWN_ROWS`, separate the good rows from the bad ones."""
    scores: dict[bool, list[float | None]] = {True: [], False: []}
    for row, grade in zip(KNOWN_ROWS, grades, strict=True):
        scores[row["good"]].append(grade.score)
    return {"rows": len(KNOWN_ROWS), **known_separation(scores[True], scores[False]), "agreement": agreement(grades)}
