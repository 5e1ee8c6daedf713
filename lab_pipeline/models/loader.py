"""Load models and tokenizers from local folders."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

_DATE = date(2024, 7, 26)
"""The date that templates write which ask for today's: the one that Llama 3.1's template falls back to."""


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
    """Load the tokenizer in a model's local folder; it holds the model's chat template.

    Of several templates, it holds the one for plain conversations. A template that writes today's date gets a fixed one, which
    is saved and shipped with it: else scores of different nights would be measured under different prompts.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if isinstance(tokenizer.chat_template, dict):
        tokenizer.chat_template = tokenizer.chat_template.get("default")
    tokenizer.chat_template = _dated(tokenizer.chat_template)
    return tokenizer


def _dated(template: str | None) -> str | None:
    """Return a template in which `strftime_now`, by which templates get today's date, gives `_DATE`."""
    codes = [f"%{code}" for code in (*"aAbBdmyYjHIMSp", *"-d -m -H -I".split())]
    fixed = "".join(f" | replace('{code}', '{_DATE.strftime(code)}')" for code in codes)
    macro = "{%- macro strftime_now(format) -%}{{- format" + fixed + " -}}{%- endmacro -%}"
    if template is None or "strftime_now" not in template or macro in template:
        return template
    return macro + template
