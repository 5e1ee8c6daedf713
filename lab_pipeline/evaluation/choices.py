"""Multiple choice without a judge: does a model find the reference answer likelier than the leaf's other answers?

The other answers are of the same subject and style, so that a model cannot tell them by their manner. Advisory: the gate
decides by losses, which are finer; ranks say in plain words what a loss is worth.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab_pipeline.core.progress import Progress, Say
from lab_pipeline.models.likelihood import as_row
from lab_pipeline.models.loader import load_model, load_tokenizer
from lab_pipeline.models.packing import IGNORED, TokenRow, encode_answers

Rank = dict[str, int]
"""`rank` of the reference among `choices`, 1 = likeliest."""


def answer_ranks(
    model_folder: Path, questions: list[dict[str, Any]], distractors: list[list[str]], say: Say
) -> list[Rank | None]:
    """Rank of each question's reference answer by mean log-likelihood per token; None where there is nothing to choose from.

    The prompt is computed once and its cache shared by all answers, which run as one batch. So a question costs its prompt
    and up to nine answers, where its loss costs the prompt and one. A tie counts against the reference.
    """
    import torch
    from transformers import DynamicCache

    if not any(distractors):
        return [None] * len(questions)
    model, tokenizer = load_model(model_folder), load_tokenizer(model_folder)
    progress = Progress("questions ranked", len(questions), say)
    ranks: list[Rank | None] = []
    for question, others in zip(questions, distractors, strict=True):
        choices: list[Any] = [{**question, "answer": answer} for answer in (question["answer"], *others)]
        rows = [encode_answers(as_row(choice), tokenizer) for choice in choices]
        start = next(index for index, label in enumerate(rows[0].labels) if label != IGNORED)
        answers = [_answer(row) for row in rows]
        width = max(len(answer) for answer in answers)
        # An answer is predicted from the prompt's last token on; the padding at its end is seen by nothing before it.
        last = rows[0].tokens[start - 1]
        inputs = torch.tensor([[last, *answer[:-1], *[0] * (width - len(answer))] for answer in answers])
        labels = torch.tensor([answer + [IGNORED] * (width - len(answer)) for answer in answers], device=model.device)
        with torch.inference_mode():
            cache = DynamicCache(config=model.config)
            model(
                input_ids=torch.tensor([rows[0].tokens[: start - 1]], device=model.device),
                cache=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache.batch_repeat_interleave(len(answers))
            logits = model(input_ids=inputs.to(model.device), cache=cache, use_cache=True).logits
        losses = torch.stack(
            [
                torch.nn.functional.cross_entropy(each.float(), label, ignore_index=IGNORED)
                for each, label in zip(logits, labels, strict=True)
            ]
        )
        rank = 1 + int((losses[1:] <= losses[0]).sum())
        ranks.append({"rank": rank, "choices": len(answers)} if others else None)
        progress.advance(1)
    return ranks


def summarised(ranks: list[Rank | None]) -> dict[str, float] | None:
    """Accuracy and mean reciprocal rank, with what guessing would give for an accuracy; None where nothing was ranked."""
    known = [rank for rank in ranks if rank]
    if not known:
        return None
    return {
        "questions": len(known),
        "accuracy": sum(rank["rank"] == 1 for rank in known) / len(known),
        "reciprocal_rank": sum(1 / rank["rank"] for rank in known) / len(known),
        "by_guessing": sum(1 / rank["choices"] for rank in known) / len(known),
    }


def _answer(row: TokenRow) -> list[int]:
    return [label for label in row.labels if label != IGNORED]
