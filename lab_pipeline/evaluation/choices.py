"""Score models in multiple choice without a judge: is the reference answer likelier than the leaf's other answers?

The other answers have the same subject and style, so style gives nothing away. The gate decides by losses, which are finer, but
ranks show people what a loss is worth, and a candidate that surely chooses worse is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from lab_pipeline.config.settings import GateSettings
from lab_pipeline.core.evaluation import ChoiceScore
from lab_pipeline.core.progress import Progress, Say
from lab_pipeline.core.rows import Question
from lab_pipeline.evaluation.measured_model import EXAM
from lab_pipeline.models.apart import packs_rows
from lab_pipeline.models.likelihood import as_row, row_losses
from lab_pipeline.models.loader import load_model, load_tokenizer
from lab_pipeline.models.packing import IGNORED, TokenRow, encode_answers


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


def answer_ranks(
    model_folder: Path, questions: Sequence[Question], distractors: Sequence[Sequence[str]], say: Say
) -> list[Rank | None]:
    """Rank each question's reference answer and its distractors by mean log-likelihood per token.

    The prompt is computed once, and all answers share its cache and run as one batch. A question thus costs its prompt and up
    to nine answers, where its loss costs the prompt and one. In a tie, the distractor ranks before the reference.

    Args:
        distractors: wrong answers to each question, in the questions' order.

    Returns:
        One rank for each question, in their order; None for a question without distractors.
    """
    if not any(distractors):
        return [None] * len(questions)
    model, tokenizer = load_model(model_folder), load_tokenizer(model_folder)
    progress = Progress("questions ranked", len(questions), say)
    ranks: list[Rank | None] = []
    for question, others in zip(questions, distractors, strict=True):
        choices: list[Question] = [{**question, "answer": answer} for answer in (question["answer"], *others)]
        rows = [encode_answers(as_row(choice), tokenizer) for choice in choices]
        together = packs_rows(model.config)  # else its cache may hold more than keys and values
        losses = _losses_after_one_prompt(model, rows) if together else row_losses(model, rows, 0)
        rank = 1 + sum(loss <= losses[0] for loss in losses[1:])
        ranks.append({"rank": rank, "choices": len(losses)} if others else None)
        progress.advance(1)
    return ranks


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


def _losses_after_one_prompt(model: Any, rows: Sequence[TokenRow]) -> list[float]:
    """Return the loss of each row, as `row_losses`; all rows have the same prompt, whose keys and values are computed once."""
    import torch
    from transformers import DynamicCache

    start = next(index for index, label in enumerate(rows[0].labels) if label != IGNORED)
    answers = [[label for label in row.labels if label != IGNORED] for row in rows]
    width = max(len(answer) for answer in answers)
    # An answer is predicted from the prompt's last token on; nothing before the padding at its end attends to it.
    last = rows[0].tokens[start - 1]
    inputs = torch.tensor([[last, *answer[:-1], *[0] * (width - len(answer))] for answer in answers])
    labels = torch.tensor([answer + [IGNORED] * (width - len(answer)) for answer in answers], device=model.device)
    with torch.inference_mode():
        cache = DynamicCache(config=model.config)
        prompt = torch.tensor([rows[0].tokens[: start - 1]], device=model.device)
        model(input_ids=prompt, cache=cache, use_cache=True, logits_to_keep=1)
        cache.batch_repeat_interleave(len(answers))
        logits = model(input_ids=inputs.to(model.device), cache=cache, use_cache=True).logits
    cross_entropy = torch.nn.functional.cross_entropy
    each_choice = zip(logits, labels, strict=True)
    return [cross_entropy(logit.float(), label, ignore_index=IGNORED).item() for logit, label in each_choice]


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
