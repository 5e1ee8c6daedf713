"""Measure validation loss after each epoch, and choose the epoch whose adapter is used.

Further epochs lower the loss on what is trained, while the model forgets what it knew before (as measured with the shipped
recipe's model). So the number of epochs is not fixed: of the epochs that forget little enough, the best is chosen.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict

from lab_pipeline.core.rows import EpochChoice, TrainingRow
from lab_pipeline.models.likelihood import row_losses
from lab_pipeline.models.packing import TokenRow, encode_answers, split_row

GROUPS: tuple[Literal["leaves", "general"], ...] = ("leaves", "general")
_GENERAL = "general"


class ValidationLoss(TypedDict):
    """Mean losses in nats per answer token; None without rows."""

    leaves: float | None
    """Mean over leaves: each leaf counts once."""
    general: float | None
    by_leaf: dict[str, float]
    base_general: NotRequired[float | None]
    """The base model's general loss; measured once, before the first epoch."""


class EpochLoss(ValidationLoss):
    """Validation loss after an epoch; epoch 0 is before the training."""

    epoch: int
    step: int


@dataclass(frozen=True)
class ValidationSet:
    """The encoded validation rows of a data set."""

    rows: list[tuple[str, TokenRow]]
    """Each with its leaf, or *general*."""
    pack_tokens: int

    @classmethod
    def of(cls, rows: Sequence[TrainingRow], tokenizer: Any, pack_tokens: int) -> ValidationSet:
        """Encode rows with labels on their answers, as the evaluation does; of a row longer than a pack, the first piece."""
        encoded = [(row["leaf"] or _GENERAL, split_row(encode_answers(row, tokenizer), pack_tokens)[:1]) for row in rows]
        return cls([(group, piece) for group, pieces in encoded for piece in pieces], pack_tokens)

    def measure(self, model: Any) -> ValidationLoss:
        """Measure the validation loss. Draws no random numbers, and leaves the model in training mode."""
        model.eval()
        losses = defaultdict(list)
        measured = row_losses(model, [row for _, row in self.rows], self.pack_tokens)
        for (group, _), loss in zip(self.rows, measured, strict=True):
            losses[group].append(loss)
        model.train()
        means = {group: sum(each) / len(each) for group, each in sorted(losses.items())}
        general = means.pop(_GENERAL, None)
        return {"leaves": sum(means.values()) / len(means) if means else None, "general": general, "by_leaf": means}


NOTHING = ValidationSet([], 0)


def choose(epochs: Sequence[EpochLoss], of: int, base_general: float | None, tolerance: float) -> EpochChoice:
    """Choose the epoch with the lowest loss on the leaves, among those that forget no more than tolerated.

    If none is within the tolerance, choose the one with the lowest general loss; without losses on leaves, the last one within.
    Ties go to the earlier epoch. A further epoch either leaves the choice as it is or is chosen itself.

    Args:
        epochs: losses after each epoch from 1; empty without validation rows.
        of: the number of epochs that the training has in all.
        base_general: the base model's general loss; None without general rows.
        tolerance: tolerated rise of the general loss above it, in nats per token.
    """
    if not epochs:
        return {"epoch": of, "of": of, "why": "it is the last, and there are no validation rows to choose by"}
    if base_general is None:
        within, kept = epochs, "; no general rows show what was forgotten"
    else:
        limit = f"general loss is at most {tolerance:.2f} above the base model's ({base_general:.3f})"
        within = [each for each in epochs if _comparable(each["general"]) <= base_general + tolerance]
        kept = f" of the epochs whose {limit}, {len(within)} of {of}"
        if not within:
            best = min(epochs, key=lambda each: _comparable(each["general"]))
            why = f"it has the lowest general loss ({best['general']:.3f}); there is none whose {limit}"
            return {"epoch": best["epoch"], "of": of, "why": why}
    if within[-1]["leaves"] is None:
        why = f"it is the last{kept}; no leaf can spare rows to choose by"
        return {"epoch": within[-1]["epoch"], "of": of, "why": why}
    best = min(within, key=lambda each: _comparable(each["leaves"]))
    why = f"it has the lowest validation loss on the leaves ({best['leaves']:.3f}){kept}"
    return {"epoch": best["epoch"], "of": of, "why": why}


def _comparable(loss: float | None) -> float:
    """Return a loss that compares as the worst where a broken model's is not a number."""
    return math.inf if loss is None or math.isnan(loss) else loss
