"""Choosing the epoch: the loss on validation rows after each, and which one is taken.

Epochs go on lowering the loss on what is taught while the model forgets what it could before (so measured on the shipped
recipe's model). So the number of epochs is not fixed beforehand: the best of those that forget little enough is taken.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from lab_pipeline.models.likelihood import row_losses
from lab_pipeline.models.packing import TokenRow, encode_answers, truncated

_GENERAL = "general"


@dataclass(frozen=True)
class ValidationSet:
    """The validation rows of a data set, ready to be measured."""

    rows: list[TokenRow]
    groups: list[str]
    """For each row its leaf, or *general*."""
    pack_tokens: int

    @classmethod
    def of(cls, rows: list[dict[str, Any]], tokenizer: Any, pack_tokens: int) -> ValidationSet:
        """Rows labelled as the evaluation labels them, by their answers alone; of one longer than a pack, the first piece."""
        found = [
            (piece, row["leaf"] or _GENERAL)
            for row in rows
            for piece in truncated(encode_answers(row, tokenizer), pack_tokens)[:1]
        ]
        return cls([piece for piece, _ in found], [group for _, group in found], pack_tokens)

    def measure(self, model: Any) -> dict[str, Any]:
        """Mean loss in nats per answer token: `leaves` (each leaf counts once), `by_leaf` and `general`; None without rows.

        Draws no random numbers, and leaves the model in training mode.
        """
        model.eval()
        losses = defaultdict(list)
        for group, loss in zip(self.groups, row_losses(model, self.rows, self.pack_tokens), strict=True):
            losses[group].append(loss)
        model.train()
        means = {group: sum(each) / len(each) for group, each in sorted(losses.items())}
        general = means.pop(_GENERAL, None)
        return {"leaves": sum(means.values()) / len(means) if means else None, "general": general, "by_leaf": means}


NOTHING = ValidationSet([], [], 0)


@dataclass(frozen=True)
class Choice:
    """The epoch that is taken; `why` is a sentence for people."""

    epoch: int
    of: int
    why: str


def choose(epochs: list[dict[str, Any]], of: int, base_general: float | None, tolerance: float) -> Choice:
    """The epoch to take: of those that forget no more than tolerated, the one with the lowest loss on the leaves.

    If none is within the tolerance, it is the one with the lowest general loss; without leaves to go by, the last one within.
    Ties go to the earlier epoch. Each further epoch leaves the choice as it is or is chosen itself.

    Args:
        epochs: what `ValidationSet.measure` found after each, with `epoch`, from 1; empty without validation rows.
        base_general: the base model's general loss; None without general rows.
        tolerance: how far above it is tolerated, in nats per token.
    """
    if not epochs:
        return Choice(of, of, "it is the last, and there are no validation rows to choose by")
    if base_general is None:
        within, kept = epochs, "; no general rows show what was forgotten"
    else:
        limit = f"general loss is at most {tolerance:.2f} above the base model's ({base_general:.3f})"
        within = [each for each in epochs if each["general"] <= base_general + tolerance]
        kept = f" of the epochs whose {limit}, {len(within)} of {of}"
        if not within:
            best = min(epochs, key=lambda each: _or_worst(each["general"]))
            return Choice(
                best["epoch"], of, f"it has the lowest general loss ({best['general']:.3f}); there is none whose {limit}"
            )
    if within[-1]["leaves"] is None:
        return Choice(within[-1]["epoch"], of, f"it is the last{kept}; no leaf can spare rows to choose by")
    best = min(within, key=lambda each: _or_worst(each["leaves"]))
    return Choice(best["epoch"], of, f"it has the lowest validation loss on the leaves ({best['leaves']:.3f}){kept}")


def _or_worst(loss: float) -> float:
    """A loss that can be compared: that of a broken model is no number."""
    return math.inf if math.isnan(loss) else loss
