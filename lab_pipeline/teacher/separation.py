"""How well a judge's scores tell good rows from bad ones."""

from __future__ import annotations

from statistics import fmean

import numpy as np

SEPARATES = 0.9
"""Least area under the curve of a judge that may decide: of ten pairs of a good and a bad row, it ranks nine right."""


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
