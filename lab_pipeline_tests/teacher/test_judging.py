from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_pipeline.teacher.judging import area_under_curve, read_verdict
from lab_pipeline.teacher.protocol import Reply

YES_OR_NO = {"Yes": 1.0, "No": 0.0}
GRADES = {"Good": 1.0, "Fair": 0.5, "Poor": 0.0}
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


def test_a_perfect_separation_of_few_rows_is_not_certain() -> None:
    low, high = area_under_curve([1.0] * 26, [0.0] * 26)[1]
    assert 0.85 < low < 0.95 and high == 1.0
    assert area_under_curve([1.0] * 5, [0.0] * 5)[1][0] < low


def test_the_interval_is_that_of_hanley_and_mcneil_near_its_middle() -> None:
    random_like = [number * 37 % 100 for number in range(200)]
    area, (low, high) = area_under_curve([value + 15.0 for value in random_like[:100]], [float(v) for v in random_like[100:]])
    by_good, by_bad = area / (2 - area), 2 * area**2 / (1 + area)
    error = ((area * (1 - area) + 99 * (by_good - area**2) + 99 * (by_bad - area**2)) / 100**2) ** 0.5
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.1)


@given(SCORES, SCORES)
def test_swapping_good_and_bad_mirrors_area_and_interval(good: list[float], bad: list[float]) -> None:
    area, (low, high) = area_under_curve(good, bad)
    assert 0 <= low <= area <= high <= 1
    mirrored, _ = area_under_curve(bad, good)
    assert math.isclose(area + mirrored, 1)


@pytest.mark.parametrize(("good", "bad"), [([], [0.5]), ([0.5], [])])
def test_without_rows_of_both_sorts_there_is_no_area(good: list[float], bad: list[float]) -> None:
    with pytest.raises(ValueError, match="good rows and of bad rows"):
        area_under_curve(good, bad)


@pytest.mark.parametrize(
    ("choices", "said", "score", "verdict"),
    [
        (YES_OR_NO, "**Yes**", 1.0, "Yes"),
        (YES_OR_NO, "Verdict: no", 0.0, "No"),
        (YES_OR_NO, "Yes, there is no doubt", 1.0, "Yes"),
        (YES_OR_NO, "Hard to say, yes and no", None, "unreadable"),
        (YES_OR_NO, "Nothing of the kind", None, "unreadable"),
        (GRADES, "It is fair.", 0.5, "Fair"),
        (GRADES, "Poor", 0.0, "Poor"),
        (GRADES, "", None, "unreadable"),
    ],
)
def test_a_verdict_is_read_where_it_is_clear(choices: dict[str, float], said: str, score: float | None, verdict: str) -> None:
    assert read_verdict(choices, Reply(said, "stop", 1, 1)) == (score, verdict)


def test_with_probabilities_the_score_is_the_expected_worth() -> None:
    reply = Reply("Fair", "stop", 1, 1, {"Good": 0.25, "Fair": 0.5, "Poor": 0.25})
    assert read_verdict(GRADES, reply) == (0.5, "Fair")
    assert read_verdict(GRADES, Reply("Good", "stop", 1, 1, {"Good": 0.6, "Fair": 0.4, "Poor": 0.0})) == (0.8, "Good")
