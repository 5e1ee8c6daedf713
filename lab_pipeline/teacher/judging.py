"""Reading a judge's replies, and how well its scores tell good rows from bad ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from statistics import fmean
from typing import Any

import numpy as np

from lab_pipeline.teacher.protocol import Reply

SEPARATES = 0.9
"""Least area under the curve of a judge that may decide: of ten pairs of a good and a bad row, it ranks nine right."""


def read_verdict(choices: Mapping[str, float], reply: Reply) -> tuple[float | None, str]:
    """(score, verdict): the expected worth by probabilities where there are any, else that of the choice which the text begins
    with, or names as the only one. (None, 'unreadable') where there is none.

    Args:
        choices: what each choice that the judge has is worth.
    """
    if reply.probabilities:
        score = sum(probability * choices[choice] for choice, probability in reply.probabilities.items())
        return score, max(reply.probabilities, key=reply.probabilities.__getitem__)
    for place in (r"\A\W*", r"\b"):
        named = [each for each in choices if re.search(rf"{place}{re.escape(each)}\b", reply.text, re.IGNORECASE)]
        if len(named) == 1:
            return choices[named[0]], named[0]
    return None, "unreadable"


def known_separation(good: list[float | None], bad: list[float | None]) -> dict[str, Any]:
    """`area` under the curve and its `interval` from scores of rows whose verdict is known, and whether the judge `separates`.

    A verdict that could not be read (None) is taken for the wrong one, so the area is the least that the judge may claim.
    """
    area, interval = area_under_curve(
        [0.0 if score is None else score for score in good], [1.0 if score is None else score for score in bad]
    )
    return {"area": area, "interval": list(interval), "separates": area >= SEPARATES}


def area_under_curve(good: list[float], bad: list[float]) -> tuple[float, tuple[float, float]]:
    """Share of (good, bad) pairs in which the good one scores higher, ties counting half, with its 95 % interval.

    The interval holds every area from which this one is no further than 1.96 standard errors (Hanley and McNeil, *Radiology*
    1982) at that area, as Wilson's does for shares (Newcombe, *Statistics in Medicine* 2006): so a perfect separation of few
    rows is not taken for certainty.

    Raises:
        ValueError: one of the lists is empty.
    """
    if not good or not bad:
        raise ValueError("an area under the curve needs scores of good rows and of bad ones")
    area = fmean((one > other) + 0.5 * (one == other) for one in good for other in bad)
    areas = np.linspace(0, 1, 1001)
    by_good, by_bad = areas / (2 - areas), 2 * areas**2 / (1 + areas)
    excess = (len(good) - 1) * (by_good - areas**2) + (len(bad) - 1) * (by_bad - areas**2)
    errors = np.sqrt((areas * (1 - areas) + excess) / (len(good) * len(bad)))
    within = [area, *areas[np.abs(areas - area) <= 1.96 * errors].tolist()]
    return area, (min(within), max(within))
