"""Load a model with its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def load_model(folder: Path) -> tuple[Any, Any, str]:
    """Model in bf16, as it would ship, its tokenizer, and the device that it is on."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    return model.to(device).eval(), AutoTokenizer.from_pretrained(folder), device
