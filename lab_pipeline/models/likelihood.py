"""Measure a model's loss on reference answers, by which the gate decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from lab_pipeline.core.progress import Progress, Say
from lab_pipeline.core.rows import GeneralQuestion, Question, Turn, as_prompt
from lab_pipeline.models.apart import packs_rows
from lab_pipeline.models.loader import load_model, load_tokenizer
from lab_pipeline.models.packing import IGNORED, Conversation, TokenRow, encode_answers, flatten

_PACK_TOKENS = 2048


def answer_losses(model_folder: Path, questions: Sequence[Question | GeneralQuestion], say: Say) -> list[float]:
    """Return a model's loss on each question's reference answer: its mean negative log-likelihood, in nats per token.

    Only tokens of the answer's own text count (`encode_answers`). The model is loaded from `model_folder` in bf16 and prompted
    through its own chat template, as in training. Progress goes to `say`.

    Raises:
        TokenError: the chat template refuses a question with its answer.
    """
    if not questions:
        return []
    model, tokenizer = load_model(model_folder), load_tokenizer(model_folder)
    rows = [encode_answers(as_row(question), tokenizer) for question in questions]
    return row_losses(model, rows, _PACK_TOKENS, Progress("questions scored", len(rows), say).advance)


def row_losses(
    model: Any, rows: Sequence[TokenRow], pack_tokens: int, advance: Callable[[int], None] = lambda number: None
) -> list[float]:
    """Return each row's mean loss, in nats per labelled token; NaN for a row without labels.

    The caller sets the model to evaluation mode. Each forward pass takes rows of at most `pack_tokens` tokens together, or one
    row that is longer; rows that would see each other (`packs_rows`) pass one by one. After each pass, `advance` is called with
    the number of its rows.
    """
    import torch

    losses = [float("nan")] * len(rows)
    for indices in _batches(rows, pack_tokens if packs_rows(model.config) else 0):
        packed = {name: torch.tensor([values]).to(model.device) for name, values in flatten([rows[i] for i in indices]).items()}
        labels = packed["labels"][0]
        positions = (labels[1:] != IGNORED).nonzero().squeeze(-1)
        with torch.no_grad():  # not inference_mode: a training that goes on could not use its tensors
            logits = model(
                input_ids=packed["input_ids"], position_ids=packed["position_ids"], logits_to_keep=positions, use_cache=False
            ).logits[0]
        token_losses = torch.nn.functional.cross_entropy(logits.float(), labels[positions + 1], reduction="none")
        for index, of_row in zip(indices, token_losses.split([rows[i].learned for i in indices]), strict=True):
            losses[index] = of_row.mean().item()
        advance(len(indices))
    return losses


def prompt_of(question: Question | GeneralQuestion) -> list[Turn]:
    """Return the one user message that asks a model a question, with the question's context, if it has one, before it."""
    return as_prompt(question["question"], cast("str | None", question.get("context")))


def as_row(question: Question | GeneralQuestion) -> Conversation:
    """Return a question and its reference answer as a row for `encode_answers`; the row's id is the question's text."""
    answer: Turn = {"role": "assistant", "content": question["answer"]}
    return {"id": question["question"], "messages": [*prompt_of(question), answer], "unmask": False}


def _batches(rows: Sequence[TokenRow], pack_tokens: int) -> Iterator[list[int]]:
    """Yield the indices of the rows of each forward pass, see `row_losses`; longer rows come before shorter ones."""
    pending: list[int] = []
    size = 0
    for index in sorted(range(len(rows)), key=lambda index: len(rows[index].tokens), reverse=True):
        if pending and size + len(rows[index].tokens) > pack_tokens:
            yield pending
            pending, size = [], 0
        pending.append(index)
        size += len(rows[index].tokens)
    if pending:
        yield pending
