"""Load models and tokenizers from local folders."""

from __future__ import annotations

import os
import platform
from datetime import date
from pathlib import Path
from typing import Any

_DATE = date(2024, 7, 26)
"""The date that templates write which ask for today's: the one that Llama 3.1's template falls back to."""


_KEPT_PRODUCTS = "64"
_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
"""Number of shapes of products for which oneDNN, which multiplies bf16 matrices on a CPU, and torch keep compiled code. By
default each keeps 1,024, and rows are of many lengths: in training the packaged model, oneDNN's alone took 400 MiB after 30
steps, and saved no time."""


def this_device() -> str:
    """Return 'cuda' if there is a GPU, else 'cpu'."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def compute_dtype(device: str) -> Any:
    """Return the dtype to compute in on a device: bf16, but float32 on an x86 CPU without AVX-512.

    There, torch 2.13 multiplies bf16 matrices 45 to 120 times slower than those of float32. Weights in float32 have the values
    that are stored in bf16, so what is measured is still what ships.
    """
    import torch

    lacks_bf16 = torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2") and platform.machine() in ("x86_64", "AMD64")
    return torch.float32 if device == "cpu" and lacks_bf16 else torch.bfloat16


def load_model(
    folder: Path,
    device: str | None = None,
    quantization: Any = None,
    attention: str | None = None,
    as_stored: bool = False,
) -> Any:
    """Load a causal language model from a local folder, in the device's `compute_dtype` and in evaluation mode.

    Args:
        device: 'cuda' or 'cpu'; by default the GPU if there is one, else the CPU.
        attention: an attention implementation of transformers; None lets it choose.
        quantization: a transformers quantization config, such as `BitsAndBytesConfig`; None leaves the weights as they are.
        as_stored: load in bf16 on every device, to change and store the weights.
    """
    import torch
    from transformers import AutoModelForCausalLM

    for name in _CACHES:
        os.environ.setdefault(name, _KEPT_PRODUCTS)  # read at the first product
    device = device or this_device()
    dtype = torch.bfloat16 if as_stored else compute_dtype(device)
    places = {"": device} if quantization else None  # quantized weights cannot be moved after loading
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, quantization_config=quantization, device_map=places, attn_implementation=attention
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
