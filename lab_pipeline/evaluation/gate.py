"""Decide whether a candidate replaces the champion: it must be better on the changed leaves, and worse nowhere that matters.

Differences are candidate minus reference, in nats per answer token; negative is better. How a gain is tested, and what it rests
on: `lab_pipeline.evaluation.gain`.

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
from lab_pipeline.evaluation.gain import POWER, Gain, Losses, differences, measure_gain, student_t, within

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
    "measure got worse",
]

LeafChange = Literal["better", "worse", "no clear change", "not measurable"]


@dataclass(frozen=True)
class Answers:
    """What is known of the models' answers, beside the losses."""

    judged: tuple[float, float] | None = None
    """Interval of the candidate's judged score (0 to 1) minus the reference's at equal length; None: no judge decides."""
    choices: Choices | None = None
    """None if no question could be asked in multiple choice."""
    lost: Sequence[str] = ()
    """Acceptance questions that the reference passes and the candidate fails; each is a veto."""
    tasks: Sequence[str] = ()
    """Named tasks that decide in which the candidate is surely worse than tolerated; each is a veto."""
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
    leaves = [differences(pairs) for pairs in losses.values() if pairs]
    if not leaves:
        return None
    questions = np.concatenate(leaves)
    candidate, reference = np.mean([pair for pairs in losses.values() for pair in pairs], axis=0)
    difference, interval = float(questions.mean()), None
    variance, degrees = within(leaves)
    if not degrees:  # one question in each leaf: use the spread of all questions
        variance, degrees = within([questions])
    if degrees:
        half = student_t(confidence, degrees) * np.sqrt(variance / len(questions))
        interval = float(difference - half), float(difference + half)
    return Comparison(len(questions), len(leaves), float(candidate), float(reference), difference, interval)


def decide(
    changed: Losses,
    unchanged: Losses,
    general: list[tuple[float, float]],
    identical: bool,
    policy: GateSettings,
    answers: Answers = Answers(),
    first: bool = False,
    earlier: Sequence[Losses] = (),
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
        earlier: losses on the unchanged leaves of each earlier night, which show the noise of a retrain.
    """
    leaves = _leaf_verdicts(changed, unchanged, policy)
    changed = {leaf: pairs for leaf, pairs in changed.items() if leaf not in policy.allowed_regressions}
    unchanged = {leaf: pairs for leaf, pairs in unchanged.items() if leaf not in policy.allowed_regressions}
    gain = measure_gain(changed, unchanged, policy, first, earlier)

    def verdict(promoted: bool, outcome: Outcome, reason: str) -> Verdict:
        return Verdict(promoted, outcome, reason, gain, leaves)

    if identical:
        return verdict(True, "unchanged", "the candidate is the champion, byte for byte")
    if answers.lost:
        named = "; ".join(answers.lost)
        return verdict(False, "acceptance lost", f"the candidate fails what the model before it passed: {named}")
    if answers.tasks:
        return verdict(False, "measure got worse", f"the candidate is surely worse in {'; '.join(answers.tasks)}")
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
            return verdict(
                True, "no worse", "no leaf had to get better, and no remaining leaf got worse by more than is tolerated"
            )
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
    moved = f", {gain.difference:+.3f} without the {gain.shift:+.3f} by which unchanged leaves moved" if gain.shift else ""
    finding = (
        f"on the changed leaves ({measured} with {questions} held-out questions) the candidate's loss differs by "
        f"{gain.difference + gain.shift:+.3f} nats per token, where each leaf counts equally{moved} "
        f"(interval {gain.interval[0]:+.3f} to {gain.interval[1]:+.3f}, which allows for retrain noise of "
        f"{gain.retrain_noise:.3f} per leaf, "
        f"{'as the leaves show it' if gain.rests_on == 'leaves' else 'assumed by gate.retrain_noise'}); "
        f"this test finds a gain of {gain.detectable:.2f} in {POWER:.0%} of cases"
    )
    finding += f". But {style}: a falling loss may be style" if style else ""
    if not (gain.bound < 0 and max(gain.difference, gain.difference + gain.shift) <= -gain.minimum):
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
