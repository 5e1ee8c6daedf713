"""Measure how likely a model finds the reference answers; the gate decides by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from lab_pipeline.core.progress import Progress, Say
from lab_pipeline.core.rows import GeneralQuestion, Question, Turn, as_prompt
from lab_pipeline.models.loader import load_model, load_tokenizer
from lab_pipeline.models.packing import IGNORED, Conversation, TokenRow, encode_answers, flatten

_PACK_TOKENS = 2048


def answer_losses(model_folder: Path, questions: Sequence[Question | GeneralQuestion], say: Say) -> list[float]:
    """Compute the mean negative log-likelihood of each question's reference answer, in nats per answer token.

    The model runs in bf16, prompted by its own chat template as in training.
    """
    if not questions:
        return []
    model, tokenizer = load_model(model_folder), load_tokenizer(model_folder)
    rows = [encode_answers(as_row(question), tokenizer) for question in questions]
    return row_losses(model, rows, _PACK_TOKENS, Progress("questions scored", len(rows), say).advance)


def row_losses(
    model: Any, rows: Sequence[TokenRow], pack_tokens: int, advance: Callable[[int], None] = lambda number: None
) -> list[float]:
    """Compute the mean loss of each row, in nats per labelled token, by a model in evaluation mode.

    A forward pass takes at most `pack_tokens` tokens; `advance` is called after it with its number of rows.
    """
    import torch

    losses = [float("nan")] * len(rows)
    for indices in _batches(rows, pack_tokens):
        packed = {name: torch.tensor([values]).to(model.device) for name, values in flatten([rows[i] for i in indices]).items()}
        labels = packed["labels"][0]
        positions = (labels[1:] != IGNORED).nonzero().squeeze(-1)
        with torch.no_grad():  # a training that continues could not use tensors made in inference mode
            logits = model(
                input_ids=packed["input_ids"], position_ids=packed["position_ids"], logits_to_keep=positions, use_cache=False
            ).logits[0]
        token_losses = torch.nn.functional.cross_entropy(logits.float(), labels[positions + 1], reduction="none")
        for index, of_row in zip(indices, token_losses.split([rows[i].learned for i in indices]), strict=True):
            losses[index] = of_row.mean().item()
        advance(len(indices))
    return losses


def prompt_of(question: Question | GeneralQuestion) -> list[Turn]:
    """Build the messages by which a model is asked a question; general questions have no context."""
    return as_prompt(question["question"], cast("str | None", question.get("context")))


def as_row(question: Question | GeneralQuestion) -> Conversation:
    """Build a row for `encode_answers` from a question and its reference answer."""
    answer: Turn = {"role": "assistant", "content": question["answer"]}
    return {"id": question["question"], "messages": [*prompt_of(question), answer], "unmask": False}


def _batches(rows: Sequence[TokenRow], pack_tokens: int) -> Iterator[list[int]]:
    """Yield the indices of rows that share one forward pass, longest first."""
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
