from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_pipeline.teacher.separation import area_under_curve

SCORES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("good", "bad", "area"),
    [
        ([0.9, 0.8], [0.1, 0.2], 1.0),
        ([0.1, 0.2], [0.9, 0.8], 0.0),
        ([0.5], [0.5, 0.5], 0.5),
        ([0.9, 0.4], [0.5, 0.3], 0.75),
        ([0.9, 0.5], [0.5, 0.1], 0.875),
    ],
)
def test_the_area_is_the_share_of_pairs_that_are_ranked_right(good: list[float], bad: list[float], area: float) -> None:
    assert area_under_curve(good, bad)[0] == area


def test_the_interval_is_that_of_hanley_and_mcneil() -> None:
    """Their formula by hand for an area of 0.9 and 10 rows of each: Q1 = 0.8182, Q2 = 0.8526, SE = 0.0740."""
    good, bad = [1.0] * 9 + [0.0], [0.5] * 10
    area, (low, high) = area_under_curve(good, bad)
    error = math.sqrt((0.9 * 0.1 + 9 * (0.9 / 1.1 - 0.81) + 9 * (2 * 0.81 / 1.9 - 0.81)) / 100)
    assert area == 0.9
    assert math.isclose(low, 0.9 - 1.96 * error) and math.isclose(error, 0.0740, abs_tol=0.0001)
    assert high == 1.0, "no more than all"


@given(SCORES, SCORES)
def test_swapping_good_and_bad_mirrors_area_and_interval(good: list[float], bad: list[float]) -> None:
    area, (low, high) = area_under_curve(good, bad)
    assert 0 <= low <= area <= high <= 1
    mirrored, _ = area_under_curve(bad, good)
    assert math.isclose(area + mirrored, 1)


@pytest.mark.parametrize(("good", "bad"), [([], [0.5]), ([0.5], [])])
def test_without_rows_of_both_sorts_there_is_no_area(good: list[float], bad: list[float]) -> None:
    with pytest.raises(ValueError, match="good rows and of bad ones"):
        area_under_curve(good, bad)
