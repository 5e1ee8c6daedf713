from __future__ import annotations

import numpy as np
import pytest

from lab_pipeline.evaluation.gate import Losses, Verdict, compare, decide
from lab_pipeline.settings import GateSettings

POLICY = GateSettings()


def shifted(difference: float, leaves: int = 4, questions: int = 6, seed: int = 0) -> Losses:
    """Losses of a candidate that differs from the reference by about `difference` on each question."""
    random = np.random.default_rng(seed)
    return {
        f"leaf{leaf}": [
            (float(loss + difference + random.normal(0, 0.005)), float(loss)) for loss in random.uniform(1, 3, questions)
        ]
        for leaf in range(leaves)
    }


def verdict(
    changed: float | None = -0.5, unchanged: float | None = 0.0, general: float = 0.0, identical: bool = False
) -> Verdict:
    return decide(
        changed={} if changed is None else shifted(changed),
        unchanged={} if unchanged is None else shifted(unchanged),
        general=shifted(general, leaves=1, questions=40)["leaf0"],
        identical=identical,
        policy=POLICY,
    )


@pytest.mark.parametrize(
    ("found", "promoted", "outcome"),
    [
        (verdict(), True, "better"),
        (verdict(unchanged=None), True, "better"),
        (verdict(changed=0.0), False, "not better"),
        (verdict(changed=0.5), False, "not better"),
        (verdict(changed=-0.5, unchanged=0.3), False, "worse elsewhere"),
        (verdict(changed=-0.5, general=0.3), False, "forgetting"),
        (verdict(changed=-0.5, unchanged=0.3, general=0.3), False, "forgetting"),
        (verdict(changed=-0.5, unchanged=0.05, general=0.05), True, "better"),
    ],
)
def test_each_outcome(found: Verdict, promoted: bool, outcome: str):
    assert (found.promoted, found.outcome) == (promoted, outcome)
    assert found.reason


def test_a_gain_that_is_certain_but_below_the_least_one_is_not_better():
    assert compare(shifted(-0.015), POLICY.confidence).interval[1] < 0  # type: ignore[union-attr]
    assert verdict(changed=-0.015).outcome == "not better"


def test_a_gain_that_chance_explains_is_not_better():
    by_chance = {"leaf": [(1.0, 2.0), (1.0, 2.0), (2.0, 1.0), (1.0, 1.5), (2.0, 1.9), (1.0, 1.2)]}
    found = decide(by_chance, {}, [], identical=False, policy=POLICY)
    assert compare(by_chance, POLICY.confidence).difference < -0.1  # type: ignore[union-attr]
    assert found.outcome == "not better"


def test_an_identical_candidate_is_promoted_whatever_it_scores():
    assert verdict(changed=0.5, general=0.5, identical=True).promoted
    assert verdict(identical=True).outcome == "unchanged"


def test_a_removal_alone_is_promoted_unless_something_that_remains_gets_worse():
    assert verdict(changed=None).promoted
    assert verdict(changed=None, unchanged=0.3).outcome == "worse elsewhere"
    assert verdict(changed=None, general=0.3).outcome == "forgetting"


@pytest.mark.parametrize(("questions", "outcome"), [(0, "not enough evidence"), (4, "not enough evidence"), (5, "better")])
def test_few_questions_are_not_enough_evidence(questions, outcome):
    changed = {"leaf": [(1.0, 2.0)] * questions}
    found = decide(changed, {}, [], identical=False, policy=POLICY)
    assert found.outcome == outcome
    assert outcome == "better" or f"{questions} held-out questions" in found.reason


def test_nothing_asked_compares_to_nothing():
    assert compare({}, 0.95) is None
    assert compare({"leaf": []}, 0.95) is None


def test_a_comparison_counts_questions_with_equal_weight_and_is_the_same_each_time():
    losses: Losses = {"small": [(1.0, 2.0)], "large": [(3.0, 3.0)] * 3, "empty": []}
    found = compare(losses, 0.95)
    assert found and (found.questions, found.leaves) == (4, 2)
    assert (found.candidate, found.reference, found.difference) == (2.5, 2.75, -0.25)
    assert found.interval[0] <= -0.25 <= found.interval[1]
    assert compare(losses, 0.95) == found


def test_the_interval_covers_no_impossible_mean():
    found = compare({f"leaf{n}": [(1.0, 1.0 + n)] * (n + 1) for n in range(5)}, 0.95)
    assert found and -4.0 <= found.interval[0] < found.interval[1] <= 0.0


def simulated(random: np.random.Generator, leaves: int, effect: float) -> Losses:
    """Differences whose noise is half of the leaf, half of the question: questions of one leaf fail together."""
    return {
        f"leaf{leaf}": [(float(effect + shared + own), 0.0) for own in random.normal(0, 0.1, 8)]
        for leaf, shared in enumerate(random.normal(0, 0.1, leaves))
    }


def promoted(leaves: int, effect: float, runs: int, as_one_leaf: bool = False) -> float:
    """Share of promotions among `runs` simulated comparisons of eight questions a leaf."""
    random = np.random.default_rng(2024)
    count = 0
    for _ in range(runs):
        losses = simulated(random, leaves, effect)
        if as_one_leaf:
            losses = {"all": [pair for pairs in losses.values() for pair in pairs]}
        count += decide(losses, {}, [], False, POLICY).promoted
    return count / runs


@pytest.mark.parametrize("leaves", [5, 10])
def test_noise_that_leaves_share_is_seldom_promoted(leaves):
    """Nominal 2.5 % on this side. 1000 null comparisons gave 7.1 % with 5 leaves (95 % interval 5.7 to 8.9 %) and 4.1 % with
    10 (3.0 to 5.5 %): a bootstrap of few leaves is too sure of itself, one that ignores leaves much more so."""
    rate = promoted(leaves, effect=0.0, runs=400)
    assert rate <= 0.08
    assert rate < promoted(leaves, effect=0.0, runs=400, as_one_leaf=True) / 2


@pytest.mark.parametrize("leaves", [5, 10])
def test_an_effect_of_twice_the_noise_is_promoted(leaves):
    assert promoted(leaves, effect=-0.2, runs=100) >= 0.95
