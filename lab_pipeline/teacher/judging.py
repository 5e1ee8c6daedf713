"""Read a judge's replies, and measure how well its scores separate good rows from bad ones."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np

from lab_pipeline.core.evaluation import Separation
from lab_pipeline.teacher.protocol import Reply

SEPARATES = 0.9
"""Least area under the ROC curve with which a judge may decide: it ranks nine of ten pairs of a good and a bad row right."""


def read_verdict(choices: Mapping[str, float], reply: Reply) -> tuple[float | None, str]:
    """Return the score and the verdict of a judge's reply; (None, 'unreadable') if no choice can be read in it.

    The verdict is the most probable choice, and the score is the expected value of all choices. Without probabilities, the
    verdict is the choice with which the text begins, or else the only choice that it names; the score is its value.

    Args:
        choices: the value of each choice.
    """
    if reply.probabilities:
        score = sum(probability * choices[choice] for choice, probability in reply.probabilities.items())
        return score, max(reply.probabilities, key=reply.probabilities.__getitem__)
    for place in (r"\A\W*", r"\b"):
        named = [each for each in choices if re.search(rf"{place}{re.escape(each)}\b", reply.text, re.IGNORECASE)]
        if len(named) == 1:
            return choices[named[0]], named[0]
    return None, "unreadable"


def known_separation(good: Sequence[float | None], bad: Sequence[float | None]) -> Separation:
    """Measure how well a judge's scores, from 0 to 1, separate rows known to be good from rows known to be bad.

    Return the area under the ROC curve, its 95 % interval, and whether the area reaches `SEPARATES`. A score of None, for a
    verdict that could not be read, counts as the wrong verdict, so the area is a lower bound.

    Raises:
        ValueError: one of the lists is empty.
    """
    area, interval = area_under_curve(
        [0.0 if score is None else score for score in good], [1.0 if score is None else score for score in bad]
    )
    return {"area": area, "interval": list(interval), "separates": area >= SEPARATES}


def area_under_curve(good: Sequence[float], bad: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Return the area under the ROC curve and its 95 % interval.

    The area is the share of (good, bad) pairs in which the good row scores higher; ties count half. The interval holds each
    area whose distance from the measured area is at most 1.96 times the standard error that the former would have (Hanley and
    McNeil, *Radiology* 1982), as Wilson's interval does for shares (Newcombe, *Statistics in Medicine* 2006). So a perfect
    separation of few rows does not pass for certainty.

    Raises:
        ValueError: one of the lists is empty.
    """
    if not good or not bad:
        raise ValueError("an area under the curve needs scores of good rows and of bad rows")
    area = fmean((one > other) + 0.5 * (one == other) for one in good for other in bad)
    areas = np.linspace(0, 1, 1001)
    by_good, by_bad = areas / (2 - areas), 2 * areas**2 / (1 + areas)
    excess = (len(good) - 1) * (by_good - areas**2) + (len(bad) - 1) * (by_bad - areas**2)
    errors = np.sqrt((areas * (1 - areas) + excess) / (len(good) * len(bad)))
    within = [area, *areas[np.abs(areas - area) <= 1.96 * errors].tolist()]
    return area, (min(within), max(within))
