"""Load models and tokenizers from local folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def load_model(folder: Path, device: str | None = None, quantization: Any = None) -> Any:
    """Load a causal language model in bf16, ready for evaluation; by default onto the GPU if there is one.

    Args:
        quantization: a transformers quantization config for the weights.
    """
    import torch
    from transformers import AutoModelForCausalLM

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    places = {"": device} if quantization else None  # quantized weights cannot be moved later
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, quantization_config=quantization, device_map=places
    )
    return (model if quantization else model.to(device)).eval()


def load_tokenizer(folder: Path) -> Any:
    """Load a model's tokenizer with its chat template."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)
