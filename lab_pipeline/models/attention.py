"""Attend within each row of a pack by itself, on a CPU."""

from __future__ import annotations

from typing import Any

_SHORT_ROW = 256
"""Up to so many tokens, torch's plain attention is faster on a CPU than its fused one, whose backward pass is slow."""

ROWS_APART = "rows_apart"
"""Name of the attention implementation that `register_rows_apart` makes known to transformers."""


def register_rows_apart() -> None:
    """Make the attention implementation `ROWS_APART` known to transformers.

    It gives what sdpa gives, but does not compute the scores between tokens of different rows, all of which the mask of a pack
    hides: for packs of five rows, a fifth of the time. Fused GPU kernels do better by themselves.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(ROWS_APART, _attend)
    AttentionMaskInterface.register(ROWS_APART, sdpa_mask)


def _attend(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, position_ids: Any = None, **options: Any
) -> tuple[Any, None]:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    starts = [] if position_ids is None else (position_ids[0] == 0).nonzero().flatten().tolist()
    if attention_mask is None or len(starts) < 2 or query.shape[2] != key.shape[2]:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    outputs = []
    for start, end in zip(starts, [*starts[1:], query.shape[2]], strict=True):
        row = slice(start, end)
        with sdpa_kernel(SDPBackend.MATH if end - start <= _SHORT_ROW else SDPBackend.FLASH_ATTENTION):
            output, _ = sdpa_attention_forward(
                module, query[:, :, row], key[:, :, row], value[:, :, row], attention_mask[:, :, row, row], **options
            )
        outputs.append(output)
    return torch.cat(outputs, dim=1), None
