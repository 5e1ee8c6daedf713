"""Load models and tokenizers from local folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def load_model(folder: Path, device: str | None = None, quantization: Any = None, attention: str | None = None) -> Any:
    """Load a causal language model from a local folder, in bf16 and in evaluation mode.

    Args:
        device: 'cuda' or 'cpu'; by default the GPU if there is one, else the CPU.
        attention: an attention implementation of transformers; None lets it choose.
        quantization: a transformers quantization config, such as `BitsAndBytesConfig`; None leaves the weights in bf16.
    """
    import torch
    from transformers import AutoModelForCausalLM

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    places = {"": device} if quantization else None  # quantized weights cannot be moved after loading
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, quantization_config=quantization, device_map=places, attn_implementation=attention
    )
    return (model if quantization else model.to(device)).eval()


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer in a model's local folder; it holds the model's chat template."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)
