"""Measure a model's loss on reference answers, by which the gate decides."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, cast

from lab_pipeline.core.progress import Progress, Say
from lab_pipeline.core.rows import GeneralQuestion, Question, Turn, as_prompt
from lab_pipeline.models.apart import packs_rows, shares_beginnings
from lab_pipeline.models.beginnings import lay_out, shared_length
from lab_pipeline.models.loader import load_model, load_tokenizer
from lab_pipeline.models.packing import IGNORED, Conversation, TokenRow, encode_answers

_PACK_TOKENS = 512
"""Number of tokens that pass together; twice as many take more memory, and on a CPU no less time."""
_MOST_SHARING = 4096
"""Number of tokens up to which rows after one long beginning pass together: the mask grows with its square."""
_MOST_LEARNED = 128
"""Number of tokens with a loss that pass together: their logits take the memory."""
_LOGITS = 32
"""Number of tokens whose logits are turned to float32 together."""


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
    row that is longer; what several rows begin with is computed once if the model's attention allows it (`shares_beginnings`),
    and rows that would see each other (`packs_rows`) pass one by one. After each pass, `advance` is called with the number of
    its rows.
    """
    import torch

    together = packs_rows(model.config)
    share = shares_beginnings(model.config)
    losses = [float("nan")] * len(rows)
    for indices in _batches(rows, pack_tokens if together else 0, share):
        layout = lay_out([rows[index].tokens for index in indices], share)
        mask = layout.mask().to(model.device) if len(layout.tokens) < sum(map(len, layout.places)) else None
        learned = [
            (index, places[at - 1], rows[index].labels[at])
            for index, places in zip(indices, layout.places, strict=True)
            for at in range(1, len(places))
            if rows[index].labels[at] != IGNORED
        ]
        needed = sorted({place for _, place, _ in learned})
        tokens, positions, kept = (
            torch.tensor(each, device=model.device) for each in ([layout.tokens], [layout.positions], needed)
        )
        with torch.no_grad():  # not inference_mode: a training that goes on could not use its tensors
            logits = model(
                input_ids=tokens, position_ids=positions, attention_mask=mask, logits_to_keep=kept, use_cache=False
            ).logits[0]
        place_of = {place: number for number, place in enumerate(needed)}
        token_losses: dict[int, list[float]] = defaultdict(list)
        for start in range(0, len(learned), _LOGITS):  # in float32, the logits of many tokens take more memory than the model
            part = learned[start : start + _LOGITS]
            scores = logits[[place_of[place] for _, place, _ in part]].float()
            labels = torch.tensor([label for *_, label in part], device=model.device)
            found = torch.nn.functional.cross_entropy(scores, labels, reduction="none").tolist()
            for (index, *_), loss in zip(part, found, strict=True):
                token_losses[index].append(loss)
        for index, of_row in token_losses.items():
            losses[index] = fmean(of_row)
        advance(len(indices))
    return losses


def prompt_of(question: Question | GeneralQuestion) -> list[Turn]:
    """Return the one user message that asks a model a question, with the question's context, if it has one, before it."""
    return as_prompt(question["question"], cast("str | None", question.get("context")))


def as_row(question: Question | GeneralQuestion) -> Conversation:
    """Return a question and its reference answer as a row for `encode_answers`; the row's id is the question's text."""
    answer: Turn = {"role": "assistant", "content": question["answer"]}
    return {"id": question["question"], "messages": [*prompt_of(question), answer], "unmask": False}


def _batches(rows: Sequence[TokenRow], pack_tokens: int, share: bool) -> Iterator[list[int]]:
    """Yield the indices of the rows of each forward pass, see `row_losses`.

    Rows with the same beginning stand together if they share it; else longer rows come before shorter ones.
    """
    order = sorted(range(len(rows)), key=lambda index: rows[index].tokens if share else [-len(rows[index].tokens)])
    pending: list[int] = []
    size = learned = 0
    for index in order:
        row = rows[index]
        shared = shared_length(rows[pending[-1]].tokens, row.tokens) if share and pending else 0
        room = max(pack_tokens, min(2 * len(rows[pending[0]].tokens), _MOST_SHARING)) if shared else pack_tokens
        if pending and (size + len(row.tokens) - shared > room or learned + row.learned > _MOST_LEARNED):
            yield pending
            pending, size, learned, shared = [], 0, 0, 0
        pending.append(index)
        size += len(row.tokens) - shared
        learned += row.learned
    if pending:
        yield pending
