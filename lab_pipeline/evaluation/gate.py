"""Decide whether a candidate replaces the champion: it must be better on the changed leaves, and worse nowhere that matters.

Differences are candidate minus reference, in nats per answer token; negative is better.

**Gain.** Retraining on the same data with another seed shifts each leaf's mean by chance, all questions of the leaf together.
So the unit is the leaf: a t test on the means of the changed leaves, each leaf counting once (Ibragimov and Mueller,
*t-Statistic Based Correlation and Heterogeneity Robust Inference*, JBES 2010; on the need for it with few clusters: Cameron,
Gelbach and Miller, REStat 2008). "Better" thus means that the changed subjects are known better, all of them equally
important; no subject counts more for having more questions. The noise of a retrain is estimated from

- the spread of the changed leaves, knowledge and skills each about their own mean: facts gain nats where skills gain tenths,
  and this contrast is not noise. If a kind has a single changed leaf, and so no spread, all changed leaves share one mean;
- the unchanged leaves of the same kinds, about zero: nothing was taught there, so every difference is noise. This is what
  makes it possible to judge one new leaf among twenty.

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

A retrain may also shift all leaves by the same amount. If all leaves changed, no test of a single pair of models can tell such
a shift from a gain; `minimum_gain` guards against it. It is twice the standard deviation of that shift; this deviation was 0.09
in nine real trainings on the same data. Of their 72 ordered pairs, the two-sided test alone passes a third, and with the
minimum gain a single pair passes (`benchmarks/retrains.py`). At least `SHOW_A_SHIFT` unchanged leaves show such a shift as
noise, and then half of the minimum gain is enough.

**Power** is told as the gain that would be found in 80 of 100 cases: (t at the confidence + t at 80 %) standard errors, or the
minimum gain with t at 80 % standard errors on it, whichever is more (Cohen, *Statistical Power Analysis*, 1988, chapter 2).

**Harm** is measured for this very model, not for its retrains: only the questions are a sample, so the interval is that of a
mean over questions, with the spread taken within leaves. A group passes if its interval ends below the tolerance
(non-inferiority). A falling loss may be style. So candidates that choose the reference answer among others less often than
before are told, and refused if that is certain: a one-sided sign test on the questions that only one of the two models gets
right (McNemar, *Psychometrika* 1947, exact form). A single leaf vetoes the candidate if its interval, widened for the number
of leaves (Bonferroni), lies above `leaf_tolerance`. If a judge reads the answers and may decide
(`lab_pipeline.evaluation.judged`), a candidate whose answers are surely worse at equal length is refused. A judge promotes
nothing.

**Error rates** by simulation (`benchmarks/gate.py`), with the power: `benchmarks/README.md`. Resampling leaves, then questions,
passed 7 % at 5 leaves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lab_pipeline.config.settings import GateSettings
from lab_pipeline.evaluation.choices import Choices

Outcome = Literal[
    "better",
    "no worse",
    "unchanged",
    "not enough evidence",
    "not better",
    "worse elsewhere",
    "leaf got worse",
    "forgetting",
    "judged worse",
    "acceptance lost",
    "answers got worse",
]

LeafChange = Literal["better", "worse", "no clear change", "not measurable"]

Losses = dict[str, list[tuple[float, float]]]
"""(candidate, reference) loss of each question, by leaf."""


SIZE = 0.9
"""Share of the errors that the policy's confidence allows at which the gain is tested."""
FEW_LEAVES = 5
"""Up to this number of leaves, the first model of a taxonomy is judged over questions."""
SHOW_A_SHIFT = 5
"""Number of unchanged leaves of the same kinds that show a shift of all leaves alike."""
POWER = 0.8


@dataclass(frozen=True)
class Answers:
    """What is known of the models' answers, beside the losses."""

    judged: tuple[float, float] | None = None
    """Interval of the candidate's judged score (0 to 1) minus the reference's at equal length; None: no judge decides."""
    choices: Choices | None = None
    """None if no question could be asked in multiple choice."""
    lost: Sequence[str] = ()
    """Acceptance questions that the reference passes and the candidate fails; each is a veto."""
    people: "Comparison | None" = None
    """Losses on the changed leaves over people's questions alone, if the teacher's were counted too. People's are the core: no
    gain counts on which they are surely worse."""


@dataclass(frozen=True)
class Comparison:
    """Mean losses of candidate and reference over one group of questions; `difference` is candidate minus reference."""

    questions: int
    leaves: int
    candidate: float
    reference: float
    difference: float
    interval: tuple[float, float] | None
    """Confidence interval of the difference, in which only the questions are a sample. None for a single question."""

    @property
    def worst(self) -> float:
        """Upper end of the interval; without an interval, the difference."""
        return self.interval[1] if self.interval else self.difference


@dataclass(frozen=True)
class Gain:
    """Mean of the changed leaves' mean differences, each leaf counting once; the interval allows for the noise of a retrain."""

    difference: float
    interval: tuple[float, float]
    retrain_noise: float
    """Standard deviation of a leaf's mean loss between retrains, estimated from the leaves or taken from the policy."""
    degrees_of_freedom: int
    rests_on: Literal["leaves", "questions"]
    """What shows the noise: *leaves*, or *questions* with the policy's `retrain_noise`."""
    bound: float
    """The gain is certain if this upper end is below 0."""
    minimum: float
    """Least gain that counts, as a positive number."""
    detectable: float
    """Gain, as a positive number, that would be found in `POWER` of all cases."""


@dataclass(frozen=True)
class LeafVerdict:
    """Result on one leaf. Only `veto` affects the decision; the other fields show people where a candidate gained or lost."""

    leaf: str
    role: Literal["changed", "unchanged", "allowed"]
    """A leaf in `allowed_regressions` is "allowed", whether it changed or not."""
    finding: LeafChange
    """Better or worse if the interval excludes zero; not measurable without an interval."""
    veto: bool
    """Whether the interval, widened for the number of leaves, lies above `leaf_tolerance`; never for an allowed leaf."""
    comparison: Comparison | None


@dataclass(frozen=True)
class Verdict:
    """Decision of the gate. `reason` explains it to people; `gain` is None with fewer than two questions on changed leaves."""

    promoted: bool
    outcome: Outcome
    reason: str
    gain: Gain | None
    leaves: list[LeafVerdict]


def compare(losses: Losses, confidence: float) -> Comparison | None:
    """Compare two models by the mean difference over all questions; None without questions.

    The two-sided interval takes its spread within leaves, or over all questions if no leaf has two.
    """
    leaves = [_differences(pairs) for pairs in losses.values() if pairs]
    if not leaves:
        return None
    questions = np.concatenate(leaves)
    candidate, reference = np.mean([pair for pairs in losses.values() for pair in pairs], axis=0)
    difference, interval = float(questions.mean()), None
    variance, degrees = _within(leaves)
    if not degrees:  # one question in each leaf: use the spread of all questions
        variance, degrees = _within([questions])
    if degrees:
        half = student_t(confidence, degrees) * np.sqrt(variance / len(questions))
        interval = float(difference - half), float(difference + half)
    return Comparison(len(questions), len(leaves), float(candidate), float(reference), difference, interval)


def measure_gain(changed: Losses, unchanged: Losses, policy: GateSettings, first: bool = False) -> Gain | None:
    """Estimate the gain on the changed leaves as the module's head explains; None if they have fewer than two questions.

    Args:
        first: the reference is the base model.
    """
    leaves = {leaf: _differences(pairs) for leaf, pairs in changed.items() if pairs}
    if sum(len(each) for each in leaves.values()) < 2:
        return None
    kinds = {_is_knowledge(leaf) for leaf in leaves}
    groups = [[each for leaf, each in leaves.items() if _is_knowledge(leaf) == kind] for kind in kinds]
    if any(len(group) == 1 for group in groups):
        groups = [list(leaves.values())]
    stable = [_differences(pairs) for leaf, pairs in unchanged.items() if pairs and _is_knowledge(leaf) in kinds]
    noisy = [each for group in groups if len(group) > 1 for each in group] + stable
    degrees = len(noisy) - sum(len(group) > 1 for group in groups)

    per_leaf = _question_noise(list(leaves.values()))
    over_questions = degrees < 2 or (first and len(leaves) <= FEW_LEAVES)
    if over_questions:
        degrees = max(sum(len(each) - 1 for each in leaves.values()), 1)
        noise = policy.retrain_noise**2
        variance = noise + per_leaf
    else:
        deviations = [means - means.mean() for means in map(_means, groups)] + [_means(stable)]
        noise = float(np.square(np.concatenate(deviations)).sum() / degrees)
        variance = noise + max(0.0, per_leaf - _question_noise(noisy))
    difference = float(_means(list(leaves.values())).mean())
    error = float(np.sqrt(variance / len(leaves)))
    two_sided, one_sided = (student_t(1 - errors * (1 - policy.confidence), degrees) for errors in (1, 2 * SIZE))
    threshold = two_sided if over_questions else one_sided
    minimum = policy.minimum_gain / (2 if len(stable) >= SHOW_A_SHIFT else 1)
    return Gain(
        difference=difference,
        interval=(difference - two_sided * error, difference + two_sided * error),
        retrain_noise=float(np.sqrt(noise)),
        degrees_of_freedom=degrees,
        rests_on="questions" if over_questions else "leaves",
        bound=difference + threshold * error,
        minimum=minimum,
        detectable=max(threshold * error, minimum) + student_t(2 * POWER - 1, degrees) * error,
    )


def decide(
    changed: Losses,
    unchanged: Losses,
    general: list[tuple[float, float]],
    identical: bool,
    policy: GateSettings,
    answers: Answers = Answers(),
    first: bool = False,
) -> Verdict:
    """Apply the policy, and return the verdict. Leaves in `allowed_regressions` are reported, but decide nothing.

    If leaves were only removed, the others must be no worse. If fewer than `minimum_questions` held-out questions remain, the
    general questions alone decide: withdrawn data must not stay in the model for lack of a test. If there are no general
    questions either, a person decides.

    Args:
        changed: losses on leaves whose rows differ from those that the reference was trained on.
        unchanged: losses on all other leaves in use.
        general: losses on the general questions.
        identical: candidate and champion have the same bytes; such a candidate passes.
        answers: what is known of the models' answers.
        first: the reference is the base model, because there is no champion yet.
    """
    leaves = _leaf_verdicts(changed, unchanged, policy)
    changed = {leaf: pairs for leaf, pairs in changed.items() if leaf not in policy.allowed_regressions}
    unchanged = {leaf: pairs for leaf, pairs in unchanged.items() if leaf not in policy.allowed_regressions}
    gain = measure_gain(changed, unchanged, policy, first)

    def verdict(promoted: bool, outcome: Outcome, reason: str) -> Verdict:
        return Verdict(promoted, outcome, reason, gain, leaves)

    if identical:
        return verdict(True, "unchanged", "the candidate is the champion, byte for byte")
    if answers.lost:
        named = "; ".join(answers.lost)
        return verdict(False, "acceptance lost", f"the candidate fails what the model before it passed: {named}")
    guard = compare({"general": general}, policy.confidence)
    if guard and not guard.worst <= policy.general_tolerance:  # NaN must not pass
        return verdict(False, "forgetting", _too_much("general questions", guard, policy.general_tolerance))
    others = compare(unchanged, policy.confidence)
    if others and not others.worst <= policy.unchanged_tolerance:
        return verdict(False, "worse elsewhere", _too_much("unchanged leaves", others, policy.unchanged_tolerance))
    if answers.judged and answers.judged[1] < 0:
        interval = f"{answers.judged[0]:+.2f} to {answers.judged[1]:+.2f} on a scale from 0, wrong, to 1, right"
        return verdict(False, "judged worse", f"a judge finds the candidate's answers worse at equal length: {interval}")
    style = answers.choices.worse if answers.choices else ""
    if answers.choices and policy.answers == "refuse" and answers.choices.surely_worse(policy.confidence):
        return verdict(False, "answers got worse", style)
    vetoes = [leaf for leaf in leaves if leaf.veto]
    vetoing = "; ".join(f"{leaf.leaf} by {leaf.comparison.difference:+.3f}" for leaf in vetoes if leaf.comparison)
    veto = f"surely worse by more than the {policy.leaf_tolerance:.2f} nats per token that a leaf may lose: {vetoing}"
    if not changed:
        if vetoes:
            return verdict(False, "leaf got worse", veto)
        remaining = others.questions if others else 0
        if remaining >= policy.minimum_questions:
            return verdict(True, "no worse", "no leaf had to get better, and no remaining leaf got worse")
        few = f"the remaining leaves have {remaining} held-out questions, and {policy.minimum_questions} are needed to tell"
        if not general:
            return verdict(False, "not enough evidence", f"{few}; there are no general questions either")
        alone = f"{few}, so the {len(general)} general questions alone decide, and they got no worse"
        return verdict(True, "no worse", f"no leaf had to get better; {alone}")
    questions = sum(len(pairs) for pairs in changed.values())
    if gain is None or questions < policy.minimum_questions:
        few = (
            f"the changed leaves have {questions} held-out questions; {policy.minimum_questions} are needed to tell, so "
            f"{policy.minimum_questions - questions} more: write seeds, or let the teacher write questions (exam.most)"
        )
        return verdict(False, "not enough evidence", few)
    measured = sum(bool(pairs) for pairs in changed.values())
    finding = (
        f"on the changed leaves ({measured} with {questions} held-out questions) the candidate's loss differs by "
        f"{gain.difference:+.3f} nats per token, where each leaf counts equally (interval {gain.interval[0]:+.3f} to "
        f"{gain.interval[1]:+.3f}, which allows for retrain noise of {gain.retrain_noise:.3f} per leaf, "
        f"{'as the leaves show it' if gain.rests_on == 'leaves' else 'assumed by gate.retrain_noise'}); "
        f"this test finds a gain of {gain.detectable:.2f} in {POWER:.0%} of cases"
    )
    finding += f". But {style}: a falling loss may be style" if style else ""
    if not (gain.bound < 0 and gain.difference <= -gain.minimum):
        return verdict(False, "not better", finding)
    if answers.people and answers.people.interval and answers.people.interval[0] > 0:
        people = f"over the {answers.people.questions} questions by people alone it is worse by {answers.people.difference:.3f}"
        return verdict(False, "not better", f"{finding}; but {people}, and certainly so")
    if vetoes:
        return verdict(False, "leaf got worse", f"{finding}; but {veto}")
    return verdict(True, "better", finding)


def _leaf_verdicts(changed: Losses, unchanged: Losses, policy: GateSettings) -> list[LeafVerdict]:
    every = {**changed, **unchanged}
    strict = 1 - (1 - policy.confidence) / max(len(every), 1)  # Bonferroni
    verdicts = []
    for leaf, pairs in sorted(every.items()):
        allowed = leaf in policy.allowed_regressions
        compared, strictly = compare({leaf: pairs}, policy.confidence), compare({leaf: pairs}, strict)
        low, high = compared.interval if compared and compared.interval else (-np.inf, np.inf)
        at_least = strictly.interval[0] if strictly and strictly.interval else -np.inf
        finding: LeafChange = "better" if high < 0 else "worse" if low > 0 else "no clear change"
        verdicts.append(
            LeafVerdict(
                leaf=leaf,
                role="allowed" if allowed else "changed" if leaf in changed else "unchanged",
                finding=finding if compared and compared.interval else "not measurable",
                veto=at_least > policy.leaf_tolerance and not allowed,
                comparison=compared,
            )
        )
    return verdicts


def _too_much(group: str, compared: Comparison, tolerance: float) -> str:
    return (
        f"{group} may worsen by {compared.worst:+.3f} nats per token ({compared.difference:+.3f} measured), "
        f"more than the {tolerance:.2f} allowed"
    )


def _is_knowledge(leaf: str) -> bool:
    return leaf.startswith("knowledge/")


def _differences(pairs: list[tuple[float, float]]) -> np.ndarray:
    return np.array([candidate - reference for candidate, reference in pairs])


def _means(leaves: list[np.ndarray]) -> np.ndarray:
    return np.array([each.mean() for each in leaves])


def _within(leaves: list[np.ndarray]) -> tuple[float, int]:
    """Return the pooled variance of questions about their leaf's mean, and its degrees of freedom; 0, 0 if no leaf has two."""
    degrees = sum(len(each) - 1 for each in leaves)
    squares = sum(float(np.square(each - each.mean()).sum()) for each in leaves)
    return (squares / degrees if degrees else 0.0), degrees


def _question_noise(leaves: list[np.ndarray]) -> float:
    """Return the variance that a leaf's mean has because its questions are a sample, averaged over the leaves."""
    return _within(leaves)[0] * float(np.mean([1 / len(each) for each in leaves]))


def student_t(confidence: float, degrees: int) -> float:
    """Return the half-width of the two-sided interval of Student's t, in standard errors."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + confidence) / 2))
