"""Score models in multiple choice without a judge: is the reference answer likelier than wrong ones?

The wrong ones are the leaf's other answers, or the teacher wrote them beside an exam question. Their subject and style are the
same, so style gives nothing away. The gate decides by losses, which are finer, but ranks show people what a loss is worth, and
a candidate that surely chooses worse is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from lab_pipeline.config.settings import GateSettings
from lab_pipeline.core.evaluation import ChoiceScore
from lab_pipeline.core.rows import Question
from lab_pipeline.evaluation.measured_model import EXAM


class Rank(TypedDict):
    """Rank of the reference answer among the choices, which include it. The likeliest choice has rank 1."""

    rank: int
    choices: int


Ranks = Mapping[str, Mapping[str, Sequence[Rank | None]]]
"""Rank of each question's reference answer, by model and leaf; None for a question without wrong choices."""


@dataclass(frozen=True)
class Choices:
    """How often two models choose the reference answer among others, in multiple choice over the same questions."""

    questions: int
    candidate: int
    """Number of questions that the candidate gets right; likewise `reference`."""
    reference: int
    lost: int
    """Number of questions that only the reference gets right; `candidate - reference + lost` only the candidate."""

    def surely_worse(self, confidence: float) -> bool:
        """Tell whether a sign test rejects, at this confidence, that the candidate loses no more questions than it wins."""
        from scipy.special import bdtrc

        discordant = self.candidate - self.reference + 2 * self.lost
        return self.lost > 0 and float(bdtrc(self.lost - 1, discordant, 0.5)) <= 1 - confidence

    @property
    def worse(self) -> str:
        """Say for people that the candidate chooses the reference answer less often; '' if it does not."""
        if self.candidate >= self.reference:
            return ""
        return (
            f"it chooses the right answer among others in {self.candidate} of {self.questions} questions, "
            f"where the model before it did in {self.reference}"
        )


def with_choices(question: Question, distractors: Sequence[str]) -> list[Question]:
    """Return a question once with each answer: the reference first, then the wrong ones."""
    return [{**question, "answer": answer} for answer in (question["answer"], *distractors)]


def rank_reference(losses: Sequence[float]) -> Rank | None:
    """Rank the first answer among all by their losses; in a tie, it ranks last. None without others."""
    rank = 1 + sum(loss <= losses[0] for loss in losses[1:])
    return {"rank": rank, "choices": len(losses)} if len(losses) > 1 else None


def compare_choices(ranks: Ranks, reference: str, policy: GateSettings) -> Choices | None:
    """Compare how often candidate and reference choose the reference answer; None without questions in multiple choice.

    Leaves in `allowed_regressions` are left out.
    """
    pairs = [
        (ours["rank"] == 1, theirs["rank"] == 1)
        for leaf, found in ranks["candidate"].items()
        if leaf.removeprefix(EXAM) not in policy.allowed_regressions
        for ours, theirs in zip(found, ranks[reference][leaf], strict=True)
        if ours and theirs
    ]
    if not pairs:
        return None
    candidate, other = map(sum, zip(*pairs, strict=True))
    return Choices(len(pairs), candidate, other, sum(theirs and not ours for ours, theirs in pairs))


def summarise_ranks(ranks: Sequence[Rank | None]) -> ChoiceScore | None:
    """Summarise the questions that have a rank; None if there are none.

    The accuracy is the share with rank 1; beside it stand the mean reciprocal rank and the accuracy that guessing would reach.
    """
    known = [rank for rank in ranks if rank]
    if not known:
        return None
    return {
        "questions": len(known),
        "accuracy": sum(rank["rank"] == 1 for rank in known) / len(known),
        "reciprocal_rank": sum(1 / rank["rank"] for rank in known) / len(known),
        "by_guessing": sum(1 / rank["choices"] for rank in known) / len(known),
    }
