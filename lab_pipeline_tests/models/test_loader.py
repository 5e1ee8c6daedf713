from __future__ import annotations

import os

import pytest
import torch
from transformers import AutoModelForCausalLM

from lab_pipeline.models import loader
from lab_pipeline.models.loader import compute_dtype, load_model


@pytest.mark.parametrize(
    ("device", "capability", "machine", "dtype"),
    [
        ("cpu", "AVX512", "x86_64", torch.bfloat16),
        ("cpu", "AVX2", "x86_64", torch.float32),
        ("cpu", "DEFAULT", "AMD64", torch.float32),
        ("cpu", "DEFAULT", "aarch64", torch.bfloat16),
        ("cuda", "AVX2", "x86_64", torch.bfloat16),
    ],
)
def test_bf16_is_computed_in_unless_the_cpu_is_slow_at_it(monkeypatch, device, capability, machine, dtype):
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert compute_dtype(device) == dtype


def test_a_models_values_do_not_depend_on_the_dtype_computed_in(tiny_model, monkeypatch):
    stored = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16).state_dict()
    for dtype in (torch.float32, torch.bfloat16):
        monkeypatch.setattr(loader, "compute_dtype", lambda device, dtype=dtype: dtype)
        loaded = load_model(tiny_model, "cpu").state_dict()
        assert {value.dtype for value in loaded.values()} == {dtype}
        assert all(torch.equal(value, stored[name].to(dtype)) for name, value in loaded.items())
    monkeypatch.setattr(loader, "compute_dtype", lambda device: torch.float32)
    assert load_model(tiny_model, "cpu", as_stored=True).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"])
@pytest.mark.parametrize(("set_by_hand", "expected"), [(None, "64"), ("1024", "1024")])
def test_few_compiled_products_are_kept_unless_a_user_says_otherwise(tiny_model, monkeypatch, name, set_by_hand, expected):
    monkeypatch.setenv(name, set_by_hand or "")
    if set_by_hand is None:
        monkeypatch.delenv(name)
    load_model(tiny_model)
    assert os.environ[name] == expected
