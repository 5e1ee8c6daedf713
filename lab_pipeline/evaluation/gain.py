"""Test whether a candidate gained on the changed leaves: is its gain more than the noise of a retrain?

Differences are candidate minus reference, in nats per answer token; negative is better.

Retraining on the same data with another seed shifts each leaf's mean by chance, all questions of the leaf together.
So the unit is the leaf: a t test on the means of the changed leaves, each leaf counting once (Ibragimov and Mueller,
*t-Statistic Based Correlation and Heterogeneity Robust Inference*, JBES 2010; on the need for it with few clusters: Cameron,
Gelbach and Miller, REStat 2008). "Better" thus means that the changed subjects are known better, all of them equally
important; no subject counts more for having more questions. The noise of a retrain is estimated from

- the spread of the changed leaves, knowledge and skills each about their own mean: facts gain nats where skills gain tenths,
  and this contrast is not noise. If a kind has a single changed leaf, and so no spread, all changed leaves share one mean;
- the unchanged leaves of the same kinds: nothing was taught there, so every difference is noise. This is what makes it
  possible to judge one new leaf among twenty. Those of earlier nights count as well (`lab_pipeline.evaluation.earlier`):
  seven leaves of one night tell their noise to a quarter only, and the test pays for that.

A retrain may also shift all leaves by the same amount. At least `SHOW_A_SHIFT` unchanged leaves of a kind show this shift, by
their mean difference, and it is taken off the gain of that kind's changed leaves: a difference in differences (Ashenfelter and
Card, REStat 1985). Each night's unchanged leaves then show the noise about their own mean. With fewer unchanged leaves, nothing
is taken off, and they show the noise about zero. Then no test of a single pair of models can tell a shift from a gain, and
`minimum_gain` guards against it: it is twice the shift's standard deviation, which was 0.10 in 21 real trainings on the same
data of five leaves. Of their 420 ordered pairs, 30 % pass with a minimum gain of 0.05, and 2 % with that of 0.20
(`benchmarks/retrains.py`). Where the shift of every kind is taken off, half of the minimum gain is enough, but it is asked of
the gain before and after that.

Knowledge and skills each have their own noise, and the mean gain's error is put together from both by the degrees of freedom of
Satterthwaite (*Biometrics* 1946): with knowledge three times as noisy as skills, one common noise lets 6 % pass, and two let
4.5 %. A kind that shows its noise by fewer than two degrees of freedom shares that of all leaves.

If the changed leaves have fewer or noisier questions than the leaves that show the noise, the excess variance is added, as in
the analysis of variance of nested samples (Searle, Casella and McCulloch, *Variance Components*, 1992, chapter 3).

The decision rests on leaves if they show the noise, and else on questions: with fewer than two degrees of freedom (one or two
leaves in all), and for the first model of a taxonomy with at most `FEW_LEAVES` leaves. Against the base model, leaves gain by
very different amounts, and with three leaves a t test takes that for noise, whatever they learned. But these leaves are all
there are, not a sample of others: their mean gain is uncertain only because questions are a sample (its variance taken within
leaves) and because a retrain would shift each leaf, by the policy's `retrain_noise` (fixed against random effects: Searle,
Casella and McCulloch, chapter 1). So the interval stands and falls with that setting.

The bound is one-sided: a candidate is better if the gain's upper end is below 0, with `SIZE` times the errors that the policy's
confidence allows, since leaves of unequal numbers of questions make the test slightly liberal. Where the noise is assumed, it
is the upper end of the two-sided interval, which allows half of the errors.

**Power** is told as the gain that would be found in 80 of 100 cases: (t at the confidence + t at 80 %) standard errors, or the
minimum gain with t at 80 % standard errors on it, whichever is more (Cohen, *Statistical Power Analysis*, 1988, chapter 2).

**Error rates** by simulation (`benchmarks/gate.py`): `benchmarks/README.md`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lab_pipeline.config.settings import GateSettings

Losses = dict[str, list[tuple[float, float]]]
"""(candidate, reference) loss of each question, by leaf."""

SIZE = 0.9
"""Share of the errors that the policy's confidence allows at which the gain is tested."""
FEW_LEAVES = 5
"""Up to this number of leaves, the first model of a taxonomy is judged over questions."""
SHOW_A_SHIFT = 5
"""Minimum number of unchanged leaves of a kind whose mean difference is taken off the gain."""
POWER = 0.8


@dataclass(frozen=True)
class Gain:
    """How much better the changed leaves are known, each leaf counting once; the interval allows for the noise of a retrain."""

    difference: float
    """Mean difference of each changed leaf, averaged over these leaves, less the `shift`."""
    shift: float
    """What was taken off for what tonight's unchanged leaves of the same kinds moved by; 0 if there are too few of them."""
    interval: tuple[float, float]
    retrain_noise: float
    """Standard deviation of a leaf's mean loss between retrains, beyond the shift that is taken off; estimated from the leaves
    or taken from the policy."""
    degrees_of_freedom: float
    rests_on: Literal["leaves", "questions"]
    """What shows the noise: *leaves*, or *questions* with the policy's `retrain_noise`."""
    bound: float
    """The gain is certain if this upper end is below 0."""
    minimum: float
    """Least gain that counts, as a positive number."""
    detectable: float
    """Gain, as a positive number, that would be found in `POWER` of all cases."""


def measure_gain(
    changed: Losses, unchanged: Losses, policy: GateSettings, first: bool = False, earlier: Sequence[Losses] = ()
) -> Gain | None:
    """Estimate the gain on the changed leaves as the module's head explains; None if they have fewer than two questions.

    Args:
        first: the reference is the base model.
        earlier: losses on the unchanged leaves of each earlier night.
    """
    leaves = {leaf: differences(pairs) for leaf, pairs in changed.items() if pairs}
    if sum(len(each) for each in leaves.values()) < 2:
        return None
    kinds = [
        _Kind(
            [_of_kind(changed, kind)],
            [_of_kind(night, kind) for night in (unchanged, *earlier)],
            controlled=len(_of_kind(unchanged, kind)) >= SHOW_A_SHIFT,
        )
        for kind in sorted(set(map(_is_knowledge, leaves)))
    ]
    if any(kind.degrees < 2 for kind in kinds):
        kinds = [_joined(kinds)]
    degrees: float = sum(kind.degrees for kind in kinds)
    over_questions = degrees < 2 or (first and len(leaves) <= FEW_LEAVES)
    if over_questions:
        degrees = max(sum(len(each) - 1 for each in leaves.values()), 1)
        noise = policy.retrain_noise**2
        variance = (noise + _question_noise(list(leaves.values()))) / len(leaves)
        shift, controlled = 0.0, False
    else:
        shares = [kind.leaves / len(leaves) for kind in kinds]
        noise = sum(kind.noise * share for kind, share in zip(kinds, shares, strict=True))
        shift = sum(kind.shift * share for kind, share in zip(kinds, shares, strict=True))
        controlled = all(kind.controlled for kind in kinds)
        parts = [kind.variance * share**2 for kind, share in zip(kinds, shares, strict=True)]
        variance = sum(parts)
        if variance:
            degrees = variance**2 / sum(part**2 / kind.degrees for part, kind in zip(parts, kinds, strict=True))
    difference = float(_means(list(leaves.values())).mean()) - shift
    error = float(np.sqrt(variance))
    two_sided, one_sided = (student_t(1 - errors * (1 - policy.confidence), degrees) for errors in (1, 2 * SIZE))
    threshold = two_sided if over_questions else one_sided
    minimum = policy.minimum_gain / (2 if controlled else 1)
    return Gain(
        difference=difference,
        shift=shift,
        interval=(difference - two_sided * error, difference + two_sided * error),
        retrain_noise=float(np.sqrt(noise)),
        degrees_of_freedom=degrees,
        rests_on="questions" if over_questions else "leaves",
        bound=difference + threshold * error,
        minimum=minimum,
        detectable=max(threshold * error, minimum + max(shift, 0.0)) + student_t(2 * POWER - 1, degrees) * error,
    )


@dataclass(frozen=True)
class _Kind:
    """Leaves that share one noise: the changed ones, by groups that each have a mean of their own, and those that did not
    change, by night, tonight's first."""

    changed: list[list[np.ndarray]]
    stable: list[list[np.ndarray]]
    controlled: bool
    """True if tonight has at least `SHOW_A_SHIFT` unchanged leaves of the kind, so that their mean is taken off."""

    @property
    def leaves(self) -> int:
        """Return the number of changed leaves."""
        return sum(map(len, self.changed))

    @property
    def shift(self) -> float:
        """Return the mean difference of tonight's unchanged leaves; 0 if they are too few to show a shift of all leaves."""
        return float(_means(self.stable[0]).mean()) if self.controlled else 0.0

    @property
    def _noisy(self) -> list[tuple[list[np.ndarray], bool]]:
        """Return the groups whose leaves show the noise, with whether they show it about their own mean or about zero."""
        changed = [(group, True) for group in self.changed if len(group) > 1]
        return changed + [(night, self.controlled) for night in self.stable if len(night) > self.controlled]

    @property
    def degrees(self) -> int:
        return sum(len(group) - about_mean for group, about_mean in self._noisy)

    @property
    def noise(self) -> float:
        """Return the variance of a leaf's mean between retrains."""
        groups = [(_means(group), about_mean) for group, about_mean in self._noisy]
        squares = [np.square(means - (means.mean() if about_mean else 0.0)).sum() for means, about_mean in groups]
        return float(sum(squares)) / self.degrees

    @property
    def variance(self) -> float:
        """Return the variance of the changed leaves' mean less the shift, if one is taken off. Either may rest on fewer or
        noisier questions than the leaves that show the noise."""
        noisy = _question_noise([leaf for group, _ in self._noisy for leaf in group])
        parts = [[leaf for group in self.changed for leaf in group], *([self.stable[0]] if self.controlled else [])]
        return sum((self.noise + max(0.0, _question_noise(leaves) - noisy)) / len(leaves) for leaves in parts)


def _joined(kinds: Sequence[_Kind]) -> _Kind:
    """Join kinds into one. Each keeps its own mean, but if one has a single changed leaf, and so no spread, all share one.

    One of them has too few leaves to show a shift of its own, and skills do not show what knowledge moved by.
    """
    groups = [group for kind in kinds for group in kind.changed]
    if any(len(group) == 1 for group in groups):
        groups = [[each for group in groups for each in group]]
    nights = zip(*(kind.stable for kind in kinds), strict=True)
    return _Kind(groups, [[each for night in several for each in night] for several in nights], controlled=False)


def _of_kind(losses: Losses, knowledge: bool) -> list[np.ndarray]:
    """Return an array of differences, one for each question, for each leaf of a kind that has questions."""
    return [differences(pairs) for leaf, pairs in losses.items() if pairs and _is_knowledge(leaf) == knowledge]


def _is_knowledge(leaf: str) -> bool:
    return leaf.startswith("knowledge/")


def differences(pairs: list[tuple[float, float]]) -> np.ndarray:
    return np.array([candidate - reference for candidate, reference in pairs])


def _means(leaves: list[np.ndarray]) -> np.ndarray:
    return np.array([each.mean() for each in leaves])


def within(leaves: list[np.ndarray]) -> tuple[float, int]:
    """Return the pooled variance of questions about their leaf's mean, and its degrees of freedom; 0, 0 if no leaf has two."""
    degrees = sum(len(each) - 1 for each in leaves)
    squares = sum(float(np.square(each - each.mean()).sum()) for each in leaves)
    return (squares / degrees if degrees else 0.0), degrees


def _question_noise(leaves: list[np.ndarray]) -> float:
    """Return the variance that a leaf's mean has because its questions are a sample, averaged over the leaves."""
    return within(leaves)[0] * float(np.mean([1 / len(each) for each in leaves]))


def student_t(confidence: float, degrees: float) -> float:
    """Return the half-width of the two-sided interval of Student's t, in standard errors."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + confidence) / 2))
