"""How likely a model finds the reference answers: the measure of the gate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lab_pipeline.core.progress import Progress, Say
from lab_pipeline.core.rows import as_conversation
from lab_pipeline.models.loader import load_model
from lab_pipeline.models.packing import IGNORED, TokenRow, encode_answers, flatten

_PACK_TOKENS = 2048


def answer_losses(model_folder: Path, questions: list[dict[str, Any]], say: Say) -> list[float]:
    """Mean negative log-likelihood (nats per token of the answer's own) of each question's reference answer.

    The model runs in bf16, prompted by its own chat template as in training. Questions have `question`, `answer` and
    perhaps `context`.
    """
    if not questions:
        return []
    model, tokenizer, _ = load_model(model_folder)
    rows = [encode_answers(as_row(question), tokenizer) for question in questions]
    return row_losses(model, rows, _PACK_TOKENS, Progress("questions scored", len(rows), say).advance)


def row_losses(
    model: Any, rows: list[TokenRow], pack_tokens: int, scored: Callable[[int], None] = lambda number: None
) -> list[float]:
    """Mean loss (nats per labelled token) of each row under a model in eval mode, packed up to `pack_tokens` a pass."""
    import torch

    losses = [float("nan")] * len(rows)
    for indices in _packs(rows, pack_tokens):
        packed = {name: torch.tensor([values]).to(model.device) for name, values in flatten([rows[i] for i in indices]).items()}
        labels = packed["labels"][0]
        positions = (labels[1:] != IGNORED).nonzero().squeeze(-1)
        with torch.no_grad():  # tensors made in inference mode could not be used by a training that goes on
            logits = model(
                input_ids=packed["input_ids"],
                position_ids=packed["position_ids"],
                logits_to_keep=positions,
                use_cache=False,
            ).logits[0]
        token_losses = torch.nn.functional.cross_entropy(logits.float(), labels[positions + 1], reduction="none")
        lengths = [sum(label != IGNORED for label in rows[i].labels[1:]) for i in indices]
        for index, part in zip(indices, token_losses.split(lengths), strict=True):
            losses[index] = part.mean().item()
        scored(len(indices))
    return losses


def as_row(question: dict[str, Any]) -> dict[str, Any]:
    """A question with its answer as a row for `encode_answers`."""
    messages = as_conversation(question["question"], question.get("context"), question["answer"])
    return {"id": question["question"], "messages": messages, "unmask": False}


def _packs(rows: list[TokenRow], pack_tokens: int) -> Iterator[list[int]]:
    """Indices of rows that share one forward pass, longest first."""
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
