"""Loading a base model for QLoRA, with a guard against a bitsandbytes trap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab_pipeline.config.recipe import Lora, Recipe


def load_base(folder: Path, recipe: Recipe) -> Any:
    """The base model, quantized as the recipe says, on the GPU if there is one."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
    quantization = None
    if recipe.quantization == "nf4":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, quantization_config=quantization, device_map={"": device}
    )
    keep_gradients_right(model)
    return model


def keep_gradients_right(model: Any) -> None:
    """Forbid bitsandbytes to repack NF4 weights for AVX512-BF16.

    bitsandbytes 0.50.2 repacks at the first forward without gradients in eval mode, and gives wrong training gradients from
    then on, without a warning: an evaluation in the middle of a training would spoil the rest of it.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def with_adapter(model: Any, lora: Lora, continued: Path | None) -> Any:
    """The model with a trainable LoRA adapter on all linear layers: a fresh one, or phase 1's to be continued."""
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model

    adapted: Any
    if continued:
        adapted = PeftModel.from_pretrained(model, continued, is_trainable=True)
    else:
        config = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        adapted = get_peft_model(model, config)
    dtype = torch.float32 if lora.dtype == "float32" else torch.bfloat16
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)
    for config in adapted.peft_config.values():  # peft's set has another order in each process, and so would the saved file
        config.target_modules = sorted(config.target_modules)
    return adapted
