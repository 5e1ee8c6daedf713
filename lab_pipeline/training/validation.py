"""Measure validation loss after each epoch, and choose the epoch whose adapter is used.

Each further epoch lowers the loss on the trained rows, while the model forgets more of what it knew before (as measured with
the shipped recipe's model). So the last epoch need not be the best: the choice is made among epochs that forget little enough.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict

from lab_pipeline.core.rows import EpochChoice
from lab_pipeline.models.likelihood import row_losses
from lab_pipeline.models.packing import TokenRow

GROUPS: tuple[Literal["leaves", "general"], ...] = ("leaves", "general")
_GENERAL = "general"


class ValidationLoss(TypedDict):
    """Validation losses: means over rows of each row's loss, in nats per answer token. A loss is None if it has no rows."""

    leaves: float | None
    """Mean of the values of `by_leaf`, so that each leaf counts once."""
    general: float | None
    by_leaf: dict[str, float]
    base_general: NotRequired[float | None]
    """General loss of the base model without any adapter; only in the measurement before the first epoch."""


class EpochLoss(ValidationLoss):
    """Validation losses after an epoch, and the number of steps until then; epoch 0 is before the training."""

    epoch: int
    step: int


@dataclass(frozen=True)
class ValidationSet:
    """The validation rows of a data set as tokens; a forward pass takes up to `pack_tokens` of these."""

    rows: Sequence[TokenRow]
    leaves: list[str | None]
    """The leaf of each row; None for a general question."""
    pack_tokens: int

    def measure(self, model: Any) -> ValidationLoss:
        """Return the model's losses on the validation rows. Draw no random numbers; leave the model in training mode."""
        model.eval()
        losses = defaultdict(list)
        for leaf, loss in zip(self.leaves, row_losses(model, self.rows, self.pack_tokens), strict=True):
            losses[leaf or _GENERAL].append(loss)
        model.train()
        means = {group: sum(each) / len(each) for group, each in sorted(losses.items())}
        general = means.pop(_GENERAL, None)
        return {"leaves": sum(means.values()) / len(means) if means else None, "general": general, "by_leaf": means}


NOTHING = ValidationSet([], [], 0)


def choose(epochs: Sequence[EpochLoss], of: int, base_general: float | None, tolerance: float) -> EpochChoice:
    """Choose the epoch with the lowest loss on the leaves among the epochs whose general loss is tolerable.

    Tolerable is a general loss of at most `base_general + tolerance`; without general rows, every epoch is. If no epoch is
    tolerable, choose the one with the lowest general loss. If no leaf has validation rows, choose the last tolerable epoch; if
    there are no validation rows at all, the last. Ties go to the earlier epoch. One more epoch in `epochs` either leaves the
    choice as it is or is chosen itself.

    Args:
        epochs: losses after each epoch from 1; empty without validation rows.
        of: the number of epochs that the training has in all.
        base_general: the base model's general loss; None without general rows.
        tolerance: in nats per token.
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
    """Return a loss for comparisons: infinite, and so the worst, if it is None or not a number, as of a broken model."""
    return math.inf if loss is None or math.isnan(loss) else loss
