"""The gate: is the candidate better than the champion, beyond what chance explains?

Differences are candidate minus reference, in nats per answer token; below zero is better. Intervals come from a two-stage
bootstrap that resamples leaves, then questions within each, for questions of one leaf succeed and fail together (Davison
and Hinkley, *Bootstrap Methods and their Application*, 1997, section 3.8): resampling questions alone promotes noise too
often.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from lab_pipeline.settings import GateSettings

RESAMPLES = 4000

Outcome = Literal["better", "unchanged", "not enough evidence", "not better", "worse elsewhere", "forgetting"]


@dataclass(frozen=True)
class Comparison:
    """Candidate against reference on one group of questions."""

    questions: int
    leaves: int
    candidate: float
    reference: float
    difference: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Verdict:
    promoted: bool
    outcome: Outcome
    reason: str


Losses = dict[str, list[tuple[float, float]]]
"""(candidate, reference) loss of each question, by leaf."""


def compare(losses: Losses, confidence: float, seed: int = 0) -> Comparison | None:
    """Mean difference over questions with its two-sided interval; None without questions."""
    pairs = {leaf: values for leaf, values in losses.items() if values}
    if not pairs:
        return None
    flat = np.array([pair for values in pairs.values() for pair in values])
    means = _resampled_means([np.array([one - other for one, other in values]) for values in pairs.values()], seed)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    candidate, reference = flat.mean(axis=0)
    return Comparison(
        questions=len(flat),
        leaves=len(pairs),
        candidate=float(candidate),
        reference=float(reference),
        difference=float(candidate - reference),
        interval=(float(low), float(high)),
    )


def _resampled_means(differences: list[np.ndarray], seed: int) -> np.ndarray:
    """Means over questions of `RESAMPLES` two-stage resamples."""
    random = np.random.default_rng(seed)
    counts = np.array([len(each) for each in differences])
    padded = np.zeros((len(differences), counts.max()))
    for index, each in enumerate(differences):
        padded[index, : len(each)] = each
    sums = np.zeros(RESAMPLES)
    totals = np.zeros(RESAMPLES)
    for _ in differences:
        leaf = random.integers(len(differences), size=RESAMPLES)
        size = counts[leaf]
        question = (random.random((RESAMPLES, padded.shape[1])) * size[:, None]).astype(int)
        drawn = padded[leaf[:, None], question]
        drawn[np.arange(padded.shape[1])[None, :] >= size[:, None]] = 0
        sums += drawn.sum(axis=1)
        totals += size
    return sums / totals


def decide(
    changed: Losses, unchanged: Losses, general: list[tuple[float, float]], identical: bool, policy: GateSettings
) -> Verdict:
    """Apply the policy.

    Args:
        changed: losses on leaves whose rows differ from what the reference was trained on.
        unchanged: losses on all other leaves in use.
        general: losses on the general questions.
        identical: candidate and reference are the same bytes.
    """
    if identical:
        return Verdict(True, "unchanged", "the candidate is the champion, byte for byte")
    guard = compare({"general": general}, policy.confidence)
    if guard and not guard.interval[1] <= policy.general_tolerance:  # so that NaN does not pass
        return Verdict(
            False,
            "forgetting",
            f"general questions may worsen by {guard.interval[1]:+.3f} nats per token "
            f"({guard.difference:+.3f} measured), more than the {policy.general_tolerance:.2f} allowed",
        )
    others = compare(unchanged, policy.confidence)
    if others and not others.interval[1] <= policy.unchanged_tolerance:
        return Verdict(
            False,
            "worse elsewhere",
            f"unchanged leaves may worsen by {others.interval[1]:+.3f} nats per token "
            f"({others.difference:+.3f} measured), more than the {policy.unchanged_tolerance:.2f} allowed",
        )
    if not changed:
        return Verdict(True, "better", "leaves were only taken out, and nothing that remains got worse")
    gain = compare(changed, policy.confidence)
    questions = gain.questions if gain else 0
    if gain is None or questions < policy.minimum_questions:
        return Verdict(
            False,
            "not enough evidence",
            f"the changed leaves have {questions} held-out questions; {policy.minimum_questions} are needed to tell",
        )
    said = (
        f"on the changed leaves' {gain.questions} held-out questions the candidate scores {gain.candidate:.3f} against "
        f"{gain.reference:.3f} (difference {gain.difference:+.3f}, interval {gain.interval[0]:+.3f} to {gain.interval[1]:+.3f})"
    )
    if gain.interval[1] < 0 and gain.difference <= -policy.minimum_gain:
        return Verdict(True, "better", said)
    return Verdict(False, "not better", said)
