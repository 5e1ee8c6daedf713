"""May a judge decide? Only if it tells good from bad among answers whose verdict is known."""

from __future__ import annotations

import json
from statistics import fmean
from typing import Any

import numpy as np

from lab_pipeline.evaluation.grading import FILES, Grade, agreement, grade_answers, rubric_digest
from lab_pipeline.progress import Say
from lab_pipeline.storage import Home, digest, read_json, write_json
from lab_pipeline.teacher.protocol import Teacher

KNOWN_ROWS: list[dict[str, Any]] = [
    json.loads(line) for line in (FILES / "known_rows.jsonl").read_text(encoding="utf-8").splitlines()
]
"""`question`, `reference`, `answer`, and whether it is `good`; written for this project. Neither length nor words shared with
the reference tell good from bad."""

LEAST_AREA = 0.9
"""Of ten pairs of a good and a bad row, a judge that may decide tells at least nine apart."""


async def judge_known_rows(home: Home, judge: Teacher, at_once: int, say: Say) -> dict[str, Any]:
    """The `separation` of this judge by this rubric, asked once.

    Raises:
        TeacherError: the judge gave no reply.
    """
    path = home.evaluations / "judge" / f"known-rows-{digest([judge.identity, rubric_digest(), KNOWN_ROWS])}.json"
    if not path.exists():
        write_json(path, separation(await grade_answers(judge, KNOWN_ROWS, at_once, say)))
    return read_json(path)


def separation(grades: list[Grade]) -> dict[str, Any]:
    """How well a judge separates `KNOWN_ROWS`, graded in their order.

    A row that could not be read is taken at its worst, so the area is the least that the judge may claim.
    """
    scores: dict[bool, list[float]] = {True: [], False: []}
    for row, grade in zip(KNOWN_ROWS, grades, strict=True):
        scores[row["good"]].append(float(not row["good"]) if grade.score is None else grade.score)
    area, interval = area_under_curve(scores[True], scores[False])
    return {
        "rows": len(KNOWN_ROWS),
        "area": area,
        "interval": list(interval),
        "holds": area >= LEAST_AREA,
        "agreement": agreement(grades),
    }


def area_under_curve(good: list[float], bad: list[float]) -> tuple[float, tuple[float, float]]:
    """Share of (good, bad) pairs in which the good one scores higher, ties counting half, with its 95 % interval.

    The interval holds every area from which this one is no further than 1.96 standard errors (Hanley and McNeil, *Radiology*
    1982) at that area, as Wilson's does for shares (Newcombe, *Statistics in Medicine* 2006): so a perfect separation of few
    rows is not taken for certainty.
    """
    area = fmean((one > other) + 0.5 * (one == other) for one in good for other in bad)
    areas = np.linspace(0, 1, 1001)
    by_good, by_bad = areas / (2 - areas), 2 * areas**2 / (1 + areas)
    excess = (len(good) - 1) * (by_good - areas**2) + (len(bad) - 1) * (by_bad - areas**2)
    errors = np.sqrt((areas * (1 - areas) + excess) / (len(good) * len(bad)))
    within = [area, *areas[np.abs(areas - area) <= 1.96 * errors].tolist()]
    return area, (min(within), max(within))
