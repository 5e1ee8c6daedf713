"""Load a base model for QLoRA, give it an adapter, and avoid a bug of bitsandbytes that makes gradients wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab_pipeline.config.recipe import Lora, Recipe
from lab_pipeline.models.attention import ROWS_APART, register_rows_apart
from lab_pipeline.models.loader import compute_dtype, load_model, this_device

_MAMBA = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
"""Architectures whose kernels read the weights of some layers past peft, which therefore refuses adapters on those."""


def load_base(folder: Path, recipe: Recipe) -> Any:
    """Load the base model from a folder, in NF4 or as it is, as the recipe says, onto the GPU if there is one."""
    import torch
    from transformers import BitsAndBytesConfig

    quantization = None
    if recipe.quantization == "nf4":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute_dtype(this_device()),
        )
    attention: str | None = recipe.attn_implementation
    if attention is None and not torch.cuda.is_available():
        register_rows_apart()
        attention = ROWS_APART
    model = load_model(folder, quantization=quantization, attention=attention)
    keep_gradients_right(model)
    if model.device.type == "cpu":
        for parameter in model.parameters():
            if parameter.dtype.is_floating_point:
                parameter.data = parameter.data.clone()  # else it keeps the file, of which it is a part, in memory
    return model


def keep_gradients_right(model: Any) -> None:
    """Keep bitsandbytes from repacking NF4 weights for AVX512-BF16.

    bitsandbytes 0.50.2 repacks them on a CPU at the first forward pass in evaluation mode without gradients. From then on it
    computes wrong gradients without a warning, so that a validation would spoil the rest of the training.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def with_adapter(model: Any, lora: Lora, continued: Path | None, new_tokens: Sequence[int] = ()) -> Any:
    """Return the model with a trainable LoRA adapter on all linear layers, in the dtype that `lora` says.

    Where bf16 is slow (see `compute_dtype`), the adapter is in float32.

    The adapter is the one in the folder `continued`, which keeps its rank, alpha and dropout, or a fresh one if that is None.
    A fresh one also trains the embeddings of `new_tokens`, as input and output, and those of no other token.
    """
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model

    from lab_pipeline.training.lora import add_in_place

    embeddings = (model.get_input_embeddings(), model.get_output_embeddings())
    names = [name for name, module in model.named_modules() if any(module is each for each in embeddings)]
    fresh = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_rslora=bool(lora.rank_stabilized),
        target_modules="all-linear",
        exclude_modules=["conv1d", "out_proj"] if model.config.model_type in _MAMBA else None,
        trainable_token_indices={name: list(new_tokens) for name in names} if new_tokens else None,
        task_type="CAUSAL_LM",
    )
    model.name_or_path = model.config.name_or_path = ""  # peft would write this machine's folder into every saved adapter
    adapted: Any = PeftModel.from_pretrained(model, continued, is_trainable=True) if continued else get_peft_model(model, fresh)
    dtype = torch.float32 if lora.dtype == "float32" else compute_dtype(model.device.type)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)
    for config in adapted.peft_config.values():
        config.base_model_name_or_path = ""  # an adapter that is continued has a name, for which peft would ask the hub
        # peft keeps sets, whose order would differ in each saved file
        config.target_modules = sorted(config.target_modules)
        config.exclude_modules = sorted(config.exclude_modules) if config.exclude_modules else None
    if model.device.type == "cpu":
        add_in_place(adapted)
    return adapted
