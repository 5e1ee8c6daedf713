from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.gate import drawn, promoted
from lab_pipeline.config.settings import GateSettings
from lab_pipeline.evaluation.choices import Choices
from lab_pipeline.evaluation.gain import Losses, measure_gain
from lab_pipeline.evaluation.gate import Answers, Verdict, compare, decide

POLICY = GateSettings()


def shifted(difference: float, leaves: int = 4, questions: int = 6, seed: int = 0, name: str = "leaf") -> Losses:
    """Losses of a candidate that differs from the reference by about `difference` on each question."""
    random = np.random.default_rng(seed)
    return {
        f"{name}{leaf}": [
            (float(loss + difference + random.normal(0, 0.005)), float(loss)) for loss in random.uniform(1, 3, questions)
        ]
        for leaf in range(leaves)
    }


def verdict(
    changed: float | None = -0.5,
    unchanged: float | None = 0.0,
    general: float = 0.0,
    identical: bool = False,
    policy: GateSettings = POLICY,
) -> Verdict:
    return decide(
        changed={} if changed is None else shifted(changed),
        unchanged={} if unchanged is None else shifted(unchanged, name="other"),
        general=shifted(general, leaves=1, questions=40)["leaf0"],
        identical=identical,
        policy=policy,
    )


@pytest.mark.parametrize(
    ("found", "promoted", "outcome"),
    [
        (verdict(), True, "better"),
        (verdict(unchanged=None), True, "better"),
        (verdict(changed=0.0), False, "not better"),
        (verdict(changed=0.5), False, "not better"),
        (verdict(changed=-0.5, unchanged=0.4), False, "worse elsewhere"),
        (verdict(changed=-0.5, general=0.3), False, "forgetting"),
        (verdict(changed=-0.5, unchanged=0.4, general=0.3), False, "forgetting"),
        (verdict(changed=-0.5, unchanged=0.05, general=0.05), True, "better"),
    ],
)
def test_each_outcome(found: Verdict, promoted: bool, outcome: str):
    assert (found.promoted, found.outcome) == (promoted, outcome)
    assert found.reason


def test_a_gain_that_is_certain_but_below_the_least_one_is_not_better():
    gain = measure_gain(shifted(-0.03), {}, POLICY)
    assert gain and gain.interval[1] < 0
    assert verdict(changed=-0.03, unchanged=None).outcome == "not better"


def test_a_gain_that_chance_explains_is_not_better():
    by_chance = {"leaf": [(1.0, 2.0), (1.0, 2.0), (2.0, 1.0), (1.0, 1.5), (2.0, 1.9), (1.0, 1.2)]}
    found = decide(by_chance, {}, [], identical=False, policy=POLICY)
    assert compare(by_chance, POLICY.confidence).difference < -0.1  # type: ignore[union-attr]
    assert found.outcome == "not better"


def test_an_identical_candidate_is_promoted_whatever_it_scores():
    assert verdict(changed=0.5, general=0.5, identical=True).promoted
    assert verdict(identical=True).outcome == "unchanged"


def test_a_removal_alone_is_promoted_unless_something_that_remains_gets_worse():
    assert verdict(changed=None).outcome == "no worse"
    assert verdict(changed=None).promoted
    assert verdict(changed=None, unchanged=0.4).outcome == "worse elsewhere"
    assert verdict(changed=None, general=0.3).outcome == "forgetting"


@pytest.mark.parametrize("remaining", [0, 4])
def test_after_a_removal_that_leaves_too_few_questions_the_general_ones_decide_alone_and_the_reason_says_so(remaining):
    def removal(general: list[tuple[float, float]]) -> Verdict:
        return decide({}, {"leaf": [(1.0, 1.0)] * remaining}, general, identical=False, policy=POLICY)

    found = removal([(1.0, 1.0)] * 40)
    assert (found.promoted, found.outcome) == (True, "no worse")
    assert f"have {remaining} held-out questions" in found.reason and "the 40 general questions alone" in found.reason
    assert removal([(1.5, 1.0)] * 40).outcome == "forgetting"
    found = removal([])
    assert (found.promoted, found.outcome) == (False, "not enough evidence")
    assert "no remaining leaf got worse" not in found.reason


@pytest.mark.parametrize(("questions", "outcome"), [(0, "not enough evidence"), (4, "not enough evidence"), (5, "better")])
def test_few_questions_are_not_enough_evidence(questions, outcome):
    changed = {"leaf": [(1.0, 2.0)] * questions}
    found = decide(changed, {}, [], identical=False, policy=POLICY)
    assert found.outcome == outcome
    assert outcome == "better" or f"{questions} held-out questions" in found.reason


def test_nothing_asked_compares_to_nothing():
    assert compare({}, 0.95) is None
    assert compare({"leaf": []}, 0.95) is None
    assert measure_gain({"leaf": []}, {}, POLICY) is None


def test_means_are_over_questions_and_the_interval_is_students():
    found = compare({"leaf": [(1.0, 2.0), (2.0, 4.0), (1.0, 4.0)]}, 0.95)
    assert found
    assert (found.questions, found.leaves) == (3, 1)
    assert (found.candidate, found.reference, found.difference) == pytest.approx((4 / 3, 10 / 3, -2.0))
    half = 4.302653 / np.sqrt(3)  # t with 2 degrees of freedom, spread 1
    assert found.interval == pytest.approx((-2 - half, -2 + half))


def test_a_single_question_has_no_interval_and_is_judged_as_measured():
    assert compare({"leaf": [(1.0, 2.0)]}, 0.95).interval is None  # type: ignore[union-attr]
    assert decide({}, {"leaf": [(2.0, 1.0)]}, [], identical=False, policy=POLICY).outcome == "worse elsewhere"
    assert decide({}, {"leaf": [(1.0, 1.0)]}, [(1.0, 1.0)], identical=False, policy=POLICY).promoted


def test_questions_of_a_group_spread_about_their_own_leafs_mean():
    found = compare({"one": [(1.0, 1.0), (1.0, 1.0)], "two": [(9.0, 1.0), (9.0, 1.0)]}, 0.95)
    assert found and found.interval == pytest.approx((4.0, 4.0))


def test_the_gain_is_the_t_test_on_leaf_means():
    leaves = {"a": [(1.0, 2.0)] * 5, "b": [(1.0, 3.0)], "c": [(1.0, 4.0)]}
    gain = measure_gain(leaves, {}, POLICY)
    assert gain
    half = 4.302653 / np.sqrt(3)
    assert gain.bound == pytest.approx(-2 + 3.103977 / np.sqrt(3)), "one-sided, at 4.5 %"
    assert (gain.difference, gain.retrain_noise, gain.degrees_of_freedom) == (-2.0, 1.0, 2)
    assert gain.interval == pytest.approx((-2 - half, -2 + half))


def test_knowledge_and_skills_gain_by_their_own_measure():
    """The figures of the sample taxonomy's first candidate against its base model."""
    shares = {"knowledge/loom": (-1.49, 8), "knowledge/thalveren": (-2.38, 8), "s/tone": (-0.14, 2), "s/notes": (-0.14, 2)}
    leaves: Losses = {
        leaf: [(5.0 + mean + wave, 5.0) for wave in np.resize([0.9, -0.9], count)] for leaf, (mean, count) in shares.items()
    } | {"s/order": [(1.98, 2.0)]}
    assert decide(leaves, {}, [], identical=False, policy=POLICY).outcome == "better"
    in_one = {leaf.replace("knowledge", "other"): pairs for leaf, pairs in leaves.items()}
    assert decide(in_one, {}, [], identical=False, policy=POLICY).outcome == "not better", "the spread would be all noise"


def test_one_new_leaf_among_twenty_that_stayed_equal_is_promoted():
    new, rest = shifted(-0.6, leaves=1), shifted(0.0, leaves=20, name="other")
    assert decide(new, rest, [], identical=False, policy=POLICY).outcome == "better"


def test_a_gain_on_one_leaf_must_stand_out_from_what_unchanged_leaves_do():
    random = np.random.default_rng(3)
    restless = {f"other{n}": shifted(shift, leaves=1)["leaf0"] for n, shift in enumerate(random.normal(-0.1, 0.4, 20))}
    assert decide(shifted(-0.6, leaves=1), restless, [], identical=False, policy=POLICY).outcome == "not better"


def moved(by: float, leaves: int = 6) -> Losses:
    """Unchanged leaves, half of which moved by 0.01 less, and half by 0.01 more."""
    return {f"other{n}": [(2 + by + 0.01 * (-1) ** n, 2.0)] * 5 for n in range(leaves)}


def test_what_the_unchanged_leaves_moved_by_is_taken_off_the_gain():
    gain = measure_gain(moved(-0.5, leaves=1), moved(-0.2), POLICY)
    assert gain and (gain.shift, gain.difference) == pytest.approx((-0.2, -0.29))
    assert gain.degrees_of_freedom == 5 and gain.retrain_noise == pytest.approx(0.01 * np.sqrt(6 / 5))
    half = 2.570582 * 0.01 * np.sqrt(6 / 5 * (1 + 1 / 6))  # t with 5 degrees of freedom
    assert gain.interval == pytest.approx((-0.29 - half, -0.29 + half))
    night = measure_gain(moved(-0.5, leaves=1), moved(-0.2), POLICY, earlier=[moved(0.4)])
    assert night and night.degrees_of_freedom == 10 and night.shift == gain.shift, "another night had a shift of its own"
    few = measure_gain(moved(-0.5, leaves=1), moved(-0.2, leaves=4), POLICY)
    assert few and (few.shift, few.difference) == pytest.approx((0.0, -0.49))


def test_skills_do_not_show_what_knowledge_moved_by():
    changed = {f"knowledge/{n}": pairs for n, pairs in enumerate(moved(-0.15, leaves=2).values())}
    gain = measure_gain(changed | shifted(-0.15, leaves=2), moved(-0.1, leaves=8), POLICY)
    assert gain and (gain.shift, gain.minimum) == (0.0, POLICY.minimum_gain)


def test_a_shift_that_few_questions_show_is_taken_off_with_its_uncertainty():
    random = np.random.default_rng(4)

    def night(leaves: int, questions: int, name: str = "other") -> Losses:
        return {f"{name}{n}": [(2 + each, 2.0) for each in random.normal(0, 0.4, questions)] for n in range(leaves)}

    def passed(new: tuple[int, int], unchanged: tuple[int, int], earlier: tuple[int, int], nights: int) -> float:
        found = [
            measure_gain(night(*new, "new"), night(*unchanged), POLICY, earlier=[night(*earlier) for _ in range(nights)])
            for _ in range(300)
        ]
        return float(np.mean([each.bound < 0 for each in found if each]))

    assert passed((1, 60), (6, 5), (6, 60), 5) <= 0.08, "18 % if tonight's leaves were as sure as those of earlier nights"
    assert passed((1, 5), (19, 60), (1, 2), 20) <= 0.08, "20 % if nights of one leaf, which show no noise, counted"


def test_a_shift_of_all_leaves_is_no_gain_and_hides_none():
    def outcome(changed: float, unchanged: float) -> str:
        return decide(moved(changed, leaves=1), moved(unchanged), [], identical=False, policy=POLICY).outcome

    assert outcome(-0.25, -0.25) == "not better", "no more than what was not taught"
    assert outcome(-0.25, 0.1) == outcome(-0.25, -0.1) == "better"
    assert outcome(-0.05, 0.1) == "not better", "against the model before it, this leaf is hardly better"
    reason = decide(moved(-0.25, leaves=1), moved(0.1), [], identical=False, policy=POLICY).reason
    assert "-0.240 nats per token" in reason and "-0.340 without the +0.100 by which unchanged leaves moved" in reason


def test_unchanged_leaves_of_earlier_nights_show_the_noise_too():
    new, rest = shifted(-0.6, leaves=1), shifted(0.0, leaves=3, name="other")
    restless = [{f"other{n}": shifted(0.5 - n, leaves=1)["leaf0"] for n in range(2)} for _ in range(4)]
    assert decide(new, rest, [], identical=False, policy=POLICY).outcome == "better"
    assert decide(new, rest, [], identical=False, policy=POLICY, earlier=restless).outcome == "not better"
    calm = measure_gain(new, rest, POLICY, earlier=[rest] * 4)
    alone = measure_gain(new, rest, POLICY)
    assert calm and alone and (alone.degrees_of_freedom, calm.degrees_of_freedom) == (3, 15)
    assert calm.bound < alone.bound and calm.minimum == alone.minimum, "an earlier night shows no shift of this one"


def test_unchanged_leaves_of_the_other_kind_say_nothing_about_a_leafs_noise():
    new = shifted(-0.6, leaves=1, name="knowledge/new")
    alone = measure_gain(new, {}, POLICY)
    assert measure_gain(new, shifted(0.0, leaves=20, name="skill"), POLICY) == alone
    assert measure_gain(new, shifted(0.0, leaves=20, name="knowledge/"), POLICY) != alone


@pytest.mark.parametrize(("gain", "outcome"), [(-0.3, "not better"), (-0.6, "better")])
def test_a_taxonomy_of_one_leaf_is_judged_by_the_known_noise(gain, outcome):
    assert decide(shifted(gain, leaves=1), {}, [], identical=False, policy=POLICY).outcome == outcome


def test_a_judge_refuses_what_it_finds_surely_worse_and_promotes_nothing():
    def judged(changed: Losses, interval: tuple[float, float] | None, identical: bool = False) -> Verdict:
        return decide(changed, {}, [], identical=identical, policy=POLICY, answers=Answers(judged=interval))

    found = judged(shifted(-0.5), (-0.4, -0.1))
    assert (found.promoted, found.outcome) == (False, "judged worse")
    assert "-0.40 to -0.10" in found.reason
    assert judged({}, (-0.4, -0.1)).outcome == "judged worse", "after a removal, too"
    for harmless in ((-0.4, 0.0), (-0.4, 0.1), (0.2, 0.4), None):
        assert judged(shifted(-0.5), harmless) == judged(shifted(-0.5), None)
    assert judged(shifted(0.0), (0.2, 0.4)).outcome == "not better"
    assert judged(shifted(0.0), (-0.4, -0.1), identical=True).promoted


def test_a_lost_acceptance_question_refuses_by_name_whatever_was_gained():
    found = decide(shifted(-0.5), {}, [], identical=False, policy=POLICY, answers=Answers(lost=["knowledge/a: price"]))
    assert (found.promoted, found.outcome) == (False, "acceptance lost")
    assert "knowledge/a: price" in found.reason
    assert decide({}, {}, [], identical=True, policy=POLICY, answers=Answers(lost=["x"])).promoted, (
        "the same bytes lose nothing"
    )


def test_a_task_that_decides_refuses_by_name():
    found = decide(shifted(-0.5), {}, [], identical=False, policy=POLICY, answers=Answers(tasks=["mmlu by 0.05"]))
    assert (found.promoted, found.outcome) == (False, "measure got worse") and "mmlu by 0.05" in found.reason


def test_answers_that_surely_got_worse_refuse_and_others_are_told():
    def chosen(candidate: int, reference: int, lost: int, **policy: object) -> Verdict:
        answers = Answers(choices=Choices(10, candidate, reference, lost))
        return decide(shifted(-0.5), {}, [], identical=False, policy=POLICY.model_copy(update=policy), answers=answers)

    told = chosen(5, 7, 3)
    assert told.outcome == "better" and "in 5 of 10 questions, where the model before it did in 7" in told.reason
    assert "style" not in chosen(7, 7, 1).reason and "style" not in chosen(8, 7, 1).reason
    refused = chosen(2, 7, 5)  # five lost and none won: 1/32
    assert (refused.promoted, refused.outcome) == (False, "answers got worse")
    assert "in 2 of 10" in refused.reason
    assert chosen(3, 7, 4).outcome == "better", "four lost and none won: 1/16"
    assert chosen(2, 7, 5, answers="tell").outcome == "better"


def test_no_gain_counts_on_which_peoples_questions_are_surely_worse():
    def asked(people: float) -> Verdict:
        answers = Answers(people=compare(shifted(people), POLICY.confidence))
        return decide(shifted(-0.5), {}, [], identical=False, policy=POLICY, answers=answers)

    worse = asked(0.1)
    assert worse.outcome == "not better" and "the 24 questions by people alone it is worse by 0.1" in worse.reason
    assert asked(-0.01).outcome == asked(0.0).outcome == "better"


def test_the_first_model_of_few_leaves_is_judged_over_questions():
    """Two knowledge leaves and a skill that all gained, by very different amounts."""
    gains = {"knowledge/a": -0.28, "knowledge/b": -0.73, "s/c": -1.30}
    leaves: Losses = {leaf: [(3.0 + mean + wave, 3.0) for wave in np.resize([0.4, -0.4], 4)] for leaf, mean in gains.items()}
    first = decide(leaves, {}, [], identical=False, policy=POLICY, first=True)
    assert (first.outcome, first.gain and first.gain.rests_on) == ("better", "questions")
    assert "assumed by gate.retrain_noise" in first.reason
    later = decide(leaves, {}, [], identical=False, policy=POLICY)
    assert (later.outcome, later.gain and later.gain.rests_on) == ("not better", "leaves")
    many = {f"knowledge/{n}": pairs for n in range(6) for pairs in [leaves["knowledge/a"]]}
    assert measure_gain(many, {}, POLICY, first=True).rests_on == "leaves"  # type: ignore[union-attr]


@pytest.mark.parametrize(("leaves", "noise"), [(1, 0.2), (2, 0.2), (3, 0.2), (5, 0.2), (3, 0.3)])
def test_first_models_that_learned_nothing_are_rarely_promoted(leaves, noise):
    assert promoted(400, 5, POLICY, changed=leaves, unchanged=0, leaf_noise=noise, first=True) <= 0.05


def test_a_small_gain_on_one_new_leaf_is_found_with_the_exam_and_not_without():
    night = {"changed": 1, "unchanged": 19, "leaf_noise": 0.05, "effect": 0.3}
    assert promoted(200, 5, POLICY, **night, questions=50) >= 0.8
    assert promoted(200, 5, POLICY, **night, questions=50, common_shift=0.1) >= 0.8, "a shift of all leaves hides nothing"
    assert promoted(200, 5, POLICY, **night, questions=5) < 0.6
    assert promoted(300, 5, POLICY, **{**night, "effect": 0.0}, questions=50) <= 0.06


def test_the_power_is_told_and_is_what_it_says():
    gain = measure_gain(shifted(-0.5, seed=1), {}, POLICY)
    assert gain and gain.detectable == pytest.approx(0.2, abs=0.01), "with hardly any noise, the minimum gain"
    verdict = decide(shifted(0.0), {}, [], identical=False, policy=POLICY)
    assert "this test finds a gain of" in verdict.reason
    shares = []
    for effect in (0.3, 0.6):
        random = np.random.default_rng(9)
        found = [measure_gain(*drawn(random, 10, 0, 0.1, effect, questions=8), POLICY) for _ in range(200)]
        shares.append((np.mean([each.detectable for each in found if each]), effect))
    assert all(0.2 < detectable < 0.4 for detectable, _ in shares)


def test_one_leaf_that_surely_collapsed_has_a_veto_and_is_named():
    changed, unchanged = shifted(-0.5), shifted(0.0, leaves=20, name="other")
    unchanged |= {"knowledge/lost": shifted(1.5, leaves=1)["leaf0"]}
    found = decide(changed, unchanged, [], identical=False, policy=POLICY)
    assert (found.promoted, found.outcome) == (False, "leaf got worse")
    assert "knowledge/lost by +1.5" in found.reason
    assert [leaf.leaf for leaf in found.leaves if leaf.veto] == ["knowledge/lost"]
    assert decide({}, unchanged, [], identical=False, policy=POLICY).outcome == "leaf got worse"


def test_an_allowed_regression_is_looked_at_by_no_decision():
    lost = {"lost": shifted(1.5, leaves=1)["leaf0"]}
    policy = GateSettings(allowed_regressions=["lost"])
    assert decide(shifted(-0.5), lost, [], identical=False, policy=policy).outcome == "better"
    found = decide(shifted(-0.5) | lost, {}, [], identical=False, policy=policy)
    assert found.outcome == "better"
    (told,) = (leaf for leaf in found.leaves if leaf.leaf == "lost")
    assert (told.role, told.finding, told.veto) == ("allowed", "worse", False)
    assert decide(lost, {}, [(1.0, 1.0)], identical=False, policy=policy).outcome == "no worse"


def test_every_leaf_says_what_it_found():
    changed = {"better": shifted(-0.5)["leaf0"], "silent": []}
    unchanged = {"worse": shifted(0.1)["leaf0"], "same": [(1.0, 1.1), (1.0, 0.9)], "single": [(1.0, 2.0)]}
    found = decide(changed, unchanged, [], identical=False, policy=POLICY)
    assert {leaf.leaf: (leaf.role, leaf.finding) for leaf in found.leaves} == {
        "better": ("changed", "better"),
        "silent": ("changed", "not measurable"),
        "worse": ("unchanged", "worse"),
        "same": ("unchanged", "no clear change"),
        "single": ("unchanged", "not measurable"),
    }


def test_what_cannot_be_measured_never_passes():
    broken = [(float("nan"), 1.0)] * 5
    assert decide({"leaf": broken}, {}, [], identical=False, policy=POLICY).outcome == "not better"
    assert decide({}, {"leaf": broken}, [], identical=False, policy=POLICY).outcome == "worse elsewhere"
    assert decide(shifted(-0.5), {}, broken, identical=False, policy=POLICY).outcome == "forgetting"


LEAVES = st.dictionaries(
    st.sampled_from(["knowledge/a", "knowledge/b", *(f"s/{letter}" for letter in "abcdefgh")]),
    st.lists(st.tuples(st.floats(0, 20), st.floats(0, 20)), max_size=6),
)


@given(changed=LEAVES, unchanged=LEAVES, general=st.lists(st.tuples(st.floats(0, 20), st.floats(0, 20)), max_size=6))
def test_whatever_was_measured_there_is_a_verdict_and_only_gains_are_called_better(changed, unchanged, general):
    unchanged = {leaf: pairs for leaf, pairs in unchanged.items() if leaf not in changed}
    found = decide(changed, unchanged, general, identical=False, policy=POLICY)
    assert len(found.leaves) == len(changed) + len(unchanged)
    if found.outcome == "better":
        assert found.promoted and found.gain and found.gain.difference <= -found.gain.minimum
        assert found.gain.difference + found.gain.shift <= -found.gain.minimum
        assert not any(leaf.veto for leaf in found.leaves)


@pytest.mark.parametrize(("changed", "unchanged"), [(3, 0), (5, 0), (20, 0), (1, 19), (3, 17)])
def test_leaf_correlated_noise_is_rarely_promoted(changed, unchanged):
    """`benchmarks/gate.py` measures it closely."""
    assert promoted(300, 5, changed=changed, unchanged=unchanged, leaf_noise=0.3) <= 0.06, "5 %, and what 300 draws leave open"


@pytest.mark.parametrize(("leaves", "unchanged"), [(5, 0), (20, 0), (1, 19)])
def test_what_a_retrain_brings_to_all_leaves_alike_is_rarely_promoted(leaves, unchanged):
    """The noise of nine real trainings of the same data: `benchmarks/README.md`."""
    assert promoted(400, 5, POLICY, changed=leaves, unchanged=unchanged, leaf_noise=0.15, common_shift=0.09) <= 0.05


def test_the_least_gain_is_what_holds_such_shifts_back():
    lenient = POLICY.model_copy(update={"minimum_gain": 0.05})
    assert promoted(400, 5, lenient, changed=20, unchanged=0, leaf_noise=0.15, common_shift=0.09) > 0.1
