from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from lab_pipeline.core.progress import Progress
from lab_pipeline.models.base_model import parameters
from lab_pipeline.training.pace import Pace, operations_per_token, peak_operations


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA H200", 989),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA GeForce GTX 1080", None),
        ("NVIDIA L400", None),
    ],
)
def test_peak_of_a_gpu_is_found_by_its_name(monkeypatch, name, teraflops):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
    assert peak_operations(2) == (teraflops and 2e12 * teraflops)


def test_no_gpu_has_no_peak():
    assert peak_operations(1) is None or torch.cuda.is_available()


def test_operations_are_four_for_each_frozen_parameter_and_six_for_each_tuned_one(tiny_model):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model).requires_grad_(False)
    model.get_output_embeddings().weight = torch.nn.Parameter(torch.zeros(10, 7))  # tuned; the folder's own still counts four
    looked_up = 0 if model.config.tie_word_embeddings else model.get_input_embeddings().weight.numel()
    assert operations_per_token(tiny_model, model) == 4 * (parameters(tiny_model) - looked_up) + 6 * 70


def test_operations_of_a_mixture_of_experts_are_unknown(tiny_model):
    from transformers import MixtralConfig

    config = MixtralConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=8)
    assert operations_per_token(tiny_model, SimpleNamespace(config=config)) is None


def test_utilization_is_the_share_of_the_peak_and_stands_in_the_progress(monkeypatch):
    said: list[str] = []
    times = iter([0.0, 2.0])
    progress = Progress("steps", 1, said.append)
    monkeypatch.setattr("lab_pipeline.training.pace.time", SimpleNamespace(monotonic=lambda: next(times)))
    pace = Pace(progress, tokens_per_step=1000, operations=4e9, peak=8e12)
    assert pace.mfu is None
    pace.step({"loss": 1.0, "learning_rate": 1e-4, "grad_norm": 1.0})
    assert pace.tokens_per_second == 500 and pace.mfu == pytest.approx(0.25)
    assert "500 tokens/s (MFU 25%)" in said[-1]


@pytest.mark.parametrize(("operations", "peak"), [(None, 8e12), (4e9, None)])
def test_unknown_operations_or_peak_leave_the_utilization_out(operations, peak):
    said: list[str] = []
    pace = Pace(Progress("steps", 1, said.append), 1000, operations, peak)
    pace.step({"loss": 1.0, "learning_rate": 1e-4, "grad_norm": 1.0})
    assert pace.mfu is None and "MFU" not in said[-1]
