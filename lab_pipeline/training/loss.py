"""Compute the cross entropy of many tokens in little memory."""

from __future__ import annotations

from typing import Any, cast

import torch

_TOKENS = 64
"""Number of tokens whose probabilities are in memory together, in float32."""


class _SummedLoss(torch.autograd.Function):
    """The summed cross entropy, whose gradient is computed in the forward pass, for a few tokens at a time."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, labels: torch.Tensor, scale: float) -> torch.Tensor:
        gradient = torch.empty_like(logits)
        total = torch.zeros((), device=logits.device)
        for start in range(0, len(labels), _TOKENS):
            part = slice(start, start + _TOKENS)
            label = labels[part, None]
            logarithms = logits[part].float().log_softmax(-1)
            total -= logarithms.gather(1, label).sum()
            of_part = logarithms.exp_()
            of_part.scatter_add_(1, label, torch.full_like(label, -1, dtype=of_part.dtype))
            gradient[part] = of_part.mul_(scale)
        ctx.save_for_backward(gradient)
        return total * scale

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient.mul_(gradients[0]), None, None


def summed_loss(logits: torch.Tensor, labels: torch.Tensor, divisor: float) -> torch.Tensor:
    """Return the summed cross entropy of tokens in nats, divided by `divisor`.

    torch's own keeps four copies of all logits, two of them in float32: with a vocabulary of 49,152, half a MiB for each
    token. This keeps one copy in their own dtype, as fused kernels do (Hsu et al. 2024, *Liger Kernel*, section 3.2).

    Args:
        logits: of shape (tokens, vocabulary).
        labels: token ids, of shape (tokens,).
    """
    return cast(torch.Tensor, _SummedLoss.apply(logits, labels, 1 / divisor))
