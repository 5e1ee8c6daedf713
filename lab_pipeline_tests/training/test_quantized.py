from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from torch import Tensor, nn

from lab_pipeline.config.recipe import Lora
from lab_pipeline.models.packing import TokenRow
from lab_pipeline.training.quantized import load_base, with_adapter
from lab_pipeline.training.validation import ValidationSet
from lab_pipeline_tests.training.runs import recipe

LORA = Lora(rank=4, alpha=8, dtype="bfloat16")
TOKENS = torch.arange(100, 148)[None]


def adapted(model: Any) -> Any:
    """The model with an adapter that is always the same; B is not zero, so A has gradients too."""
    tuned = with_adapter(model, LORA, None)
    random = torch.Generator().manual_seed(1)
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            parameter.data = (torch.randn(parameter.shape, generator=random) * 0.05).to(parameter)
    return tuned


def gradients(model: Any) -> dict[str, Tensor]:
    model.train()
    model.zero_grad()
    logits = model(input_ids=TOKENS.to(model.device)).logits[0].float()
    nn.functional.cross_entropy(logits[:-1], TOKENS[0, 1:].to(model.device)).backward()
    return {name: parameter.grad.float() for name, parameter in model.named_parameters() if parameter.requires_grad}


def dequantized(model: Any) -> Any:
    """Replace the NF4 layers by plain bf16 ones with the very same weights."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Linear4bit):
                plain = nn.Linear(child.in_features, child.out_features, bias=False, dtype=torch.bfloat16)
                weight = dequantize_4bit(child.weight.data, child.weight.quant_state).to(torch.bfloat16)
                plain.weight = nn.Parameter(weight, requires_grad=False)
                setattr(module, name, plain)
    model.is_loaded_in_4bit = model.is_quantized = False
    del model.config.quantization_config, model.hf_quantizer
    return model


@pytest.fixture(scope="module")
def nf4() -> Any:
    return recipe(quantization="nf4")


def test_an_evaluation_in_the_middle_of_a_training_leaves_the_gradients_right(tiny_model: Path, nf4: Any, in_bf16: None):
    reference = gradients(adapted(dequantized(load_base(tiny_model, nf4))))
    model = adapted(load_base(tiny_model, nf4))
    tokens = TOKENS[0].tolist()
    ValidationSet([TokenRow(tokens, tokens)], ["a/leaf"], 256).measure(model)
    found = gradients(model)
    assert found.keys() == reference.keys() and len(found) == 2 * 2 * 7  # A and B, two layers, seven linear layers each
    for name, gradient in found.items():
        error = (gradient - reference[name]).norm() / reference[name].norm()
        assert error < 0.02, f"{name}: relative error {error:.3f}"


def test_no_quantized_layer_may_be_repacked(tiny_model, nf4):
    layers = [module for module in load_base(tiny_model, nf4).modules() if isinstance(module, Linear4bit)]
    assert len(layers) == 14
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)


def test_a_recipe_without_quantization_loads_plain_bf16(tiny_model, in_bf16):
    model = load_base(tiny_model, recipe(quantization="none"))
    assert not any(isinstance(module, Linear4bit) for module in model.modules())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_where_bf16_is_slow_all_is_computed_in_float32(tiny_model, monkeypatch):
    for module in ("models.loader", "training.quantized"):
        monkeypatch.setattr(f"lab_pipeline.{module}.compute_dtype", lambda device: torch.float32)
    model = with_adapter(load_base(tiny_model, recipe(quantization="nf4")), LORA, None)
    assert {each.compute_dtype for each in model.modules() if isinstance(each, Linear4bit)} == {torch.float32}
    assert {each.dtype for each in model.parameters() if each.requires_grad} == {torch.float32}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_only_the_adapter_is_trainable_in_the_recipes_type(tiny_model, dtype, in_bf16):
    model = with_adapter(load_base(tiny_model, recipe()), Lora(rank=4, alpha=8, dtype=dtype), None)
    trainable = {name: parameter.dtype for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name for name in trainable)
    assert set(trainable.values()) == {getattr(torch, dtype)}
    assert not any("lm_head" in name for name in trainable)


def test_a_continued_adapter_starts_where_it_was_saved(tiny_model, tmp_path):
    first = adapted(load_base(tiny_model, recipe()))
    first.save_pretrained(tmp_path / "adapter")
    second = with_adapter(load_base(tiny_model, recipe()), LORA, tmp_path / "adapter")
    before, after = (
        {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        for model in (first, second)
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
