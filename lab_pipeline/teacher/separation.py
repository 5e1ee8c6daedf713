"""How well a judge's scores tell good rows from bad ones."""

from __future__ import annotations

import math

SEPARATES = 0.9
"""Least area under the curve of a judge that may decide: of ten pairs of a good and a bad row, it ranks nine right."""


def area_under_curve(good: list[float], bad: list[float]) -> tuple[float, tuple[float, float]]:
    """Probability that a good row scores higher than a bad one (ties count half), and its interval of 95 %.

    The standard error is Hanley and McNeil's (*Radiology* 143, 1982). It is 0 where the separation is perfect, which few
    rows can be by luck: three of each are in one case of 20.

    Raises:
        ValueError: one of the lists is empty.
    """
    if not good or not bad:
        raise ValueError("an area under the curve needs scores of good rows and of bad ones")
    wins = sum((one > other) + 0.5 * (one == other) for one in good for other in bad)
    area = wins / (len(good) * len(bad))
    two_good, two_bad = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (len(good) - 1) * (two_good - area**2) + (len(bad) - 1) * (two_bad - area**2)
    margin = 1.96 * math.sqrt(max(variance, 0) / (len(good) * len(bad)))
    return area, (max(area - margin, 0.0), min(area + margin, 1.0))
