"""Find out whether a model keeps the rows of one pack apart, by trying a tiny model of its architecture.

State-space, linear-attention and convolution layers carry what they read across the border of two rows, and some models count
positions in a way of their own. No list of architectures says which, so it is measured: a row must get the same probabilities
alone and between two others.
"""

from __future__ import annotations

from contextlib import suppress
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from lab_pipeline.models.attention import ROWS_APART
from lab_pipeline.models.beginnings import lay_out

if TYPE_CHECKING:
    import torch

_BY_MASK = ("sdpa", "eager", ROWS_APART)
"""Attention implementations that take a mask of any shape."""

_MOST_APART = 1e-3
"""Largest difference, in nats, between a row's log-probabilities alone and in a pack. Rounding in float32 gives 3e-5 at most,
rows that see each other give 1 or more (measured with 45 architectures of transformers 5.24)."""

_MOST_PARAMETERS = 100_000_000
"""Largest model that is built for a trial: 400 MB in float32."""

_NARROW = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "ffn_dim": 64,
    "word_embed_proj_dim": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "sliding_window": 8,
    "attention_chunk_size": 8,
    "num_local_experts": 4,
    "num_experts": 4,
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "shared_intermediate_size": 32,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "qk_head_dim": 16,
    "v_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "state_size": 8,
    "num_heads": 8,
    "n_groups": 1,
    "time_step_rank": 8,
    "ssm_state_size": 8,
    "mamba_expand": 2,
    "mamba_d_head": 8,
    "mamba_d_ssm": 64,
    "mamba_d_state": 8,
    "mamba_dt_rank": 8,
    "mamba_head_dim": 8,
    "mamba_n_groups": 1,
    "mamba_n_heads": 8,
    "mamba_num_heads": 8,
}
"""Widths of a tiny model, under the names that the architectures give them."""


def packs_rows(config: Any) -> bool:
    """Tell whether several rows may pass through a model together.

    They may if a tiny model of its architecture keeps them apart, and the setting `packing` is not off. If no tiny model can
    be built, they may not.

    Args:
        config: the configuration of a transformers model.
    """
    return bool(getattr(config, "packing", True)) and _tried(config, share=False)


def shares_beginnings(config: Any) -> bool:
    """Tell whether rows that begin alike may pass through a model as one tree (`lab_pipeline.models.beginnings`).

    This is tried likewise, where `packs_rows` holds. Layers that see only a part of a row would need
    masks of their own, so they do not share; nor do fused attention kernels, which take no mask.
    """
    return config._attn_implementation in _BY_MASK and packs_rows(config) and _tried(config, share=True)


def _tried(config: Any, share: bool) -> bool:
    text = config.get_text_config()
    key = (text.to_json_string(use_diff=False), share)
    if key not in _known:
        _known[key] = _keeps_rows_apart(text, share)
    return _known[key]


_known: dict[tuple[str, bool], bool] = {}
"""Result of `_keeps_rows_apart` by its arguments, the configuration as JSON text."""


def _keeps_rows_apart(config: Any, share: bool) -> bool:
    """Measure whether a row gets the same probabilities alone and between two others; see `packs_rows`."""
    model = tiny_model(config)
    if model is None:
        return False
    before, row, after = ([3 + step * index % 90 for index in range(length)] for length, step in ((13, 7), (40, 11), (9, 17)))
    if share:
        before, after = row[:20] + before, row[:30] + after
    together, alone = _log_probabilities(model, [before, row, after], share), _log_probabilities(model, [row])
    return float((together[1] - alone[0]).abs().max()) <= _MOST_APART


def tiny_model(config: Any) -> Any | None:
    """Build a model of the same architecture with random float32 weights, in evaluation mode, on the CPU.

    It has one layer of each kind, and a small vocabulary. It is narrow; where the architecture cannot be as narrow as that, it
    is as wide as the model. torch's random state stays as it is.

    Args:
        config: the configuration of a transformers model for text.

    Returns:
        The model; None if it would be large, or does not run.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for widths in (_NARROW, {"vocab_size": _NARROW["vocab_size"]}):
            try:
                return _running(_shrunk(config, widths))
            except Exception:  # each architecture fails in its own way where widths do not go together
                continue
    return None


def _shrunk(config: Any, widths: dict[str, int]) -> Any:
    """Return a copy of a configuration with other widths, where it has them, and with one layer of each kind, two at least.

    The kinds are told by lists of names with an entry for each layer, such as `layer_types`.
    """
    small = deepcopy(config)
    for name in widths:
        if getattr(small, name, None):
            with suppress(AttributeError):  # some are computed from others
                setattr(small, name, widths[name])
    small.pad_token_id = 0
    small.quantization_config = None
    lists = {
        name: each for name, each in small.to_dict().items() if isinstance(each, list) and len(each) == small.num_hidden_layers
    }
    kinds = list(zip(*(each for each in lists.values() if isinstance(each[0], str)), strict=True))
    kept = [index for index, kind in enumerate(kinds) if kind not in kinds[:index]]
    kept = kept if len(kept) > 1 else [0, 1]
    for name, each in lists.items():
        setattr(small, name, [each[index] for index in kept])
    small.num_hidden_layers = len(kept)
    return small


def _running(config: Any) -> Any:
    """Build the model of a configuration, and try it on a text. The weights are larger than usual, so that attention matters.

    Raises:
        ValueError: it is large.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        size = sum(each.numel() for each in AutoModelForCausalLM.from_config(config).parameters())
    if size > _MOST_PARAMETERS:
        raise ValueError(f"{size} parameters")
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    _log_probabilities(model, [list(range(10))])
    return model


def _log_probabilities(model: Any, rows: list[list[int]], share: bool = False) -> list[torch.Tensor]:
    """Return the log-probabilities of all tokens after each token of each row, as rows pass through models elsewhere."""
    import torch

    layout = lay_out(rows, share)
    mask = layout.mask() if share else None
    tokens, positions = torch.tensor([layout.tokens]), torch.tensor([layout.positions])
    with torch.no_grad():
        logits = model(input_ids=tokens, position_ids=positions, attention_mask=mask, use_cache=False).logits[0]
    return [logits[places].float().log_softmax(-1) for places in layout.places]
