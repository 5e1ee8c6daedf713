"""LoRA that is added in place gives what peft gives."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from lab_pipeline.training.lora import add_in_place

TOKENS = torch.tensor([[1, 5, 9, 2, 7]])


def adapted(tiny_model: Any, **lora: Any) -> Any:
    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    config = LoraConfig(**{"r": 4, "lora_alpha": 12, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **lora})
    model: Any = get_peft_model(base, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)  # else it is zero, and A has no gradient
    return model


def gradients(model: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    logits = model(input_ids=TOKENS).logits
    logits.square().mean().backward()
    return logits.detach(), {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


@pytest.mark.parametrize("lora", [{}, {"use_rslora": True}, {"target_modules": ["q_proj", "down_proj"]}])
def test_outputs_and_gradients_are_those_of_peft(tiny_model, lora):
    theirs = adapted(tiny_model, **lora)
    ours = copy.deepcopy(theirs)
    add_in_place(ours)
    logits, found = gradients(ours)
    expected_logits, expected = gradients(theirs)
    torch.testing.assert_close(logits, expected_logits)
    assert found.keys() == expected.keys() and any("lora_A" in name for name in found)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], msg=name)


def test_a_disabled_adapter_adds_nothing(tiny_model):
    model = adapted(tiny_model)
    add_in_place(model)
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with torch.no_grad(), model.disable_adapter():
        torch.testing.assert_close(model(input_ids=TOKENS).logits, base(input_ids=TOKENS).logits)
    assert not torch.equal(model(input_ids=TOKENS).logits, base(input_ids=TOKENS).logits)


@pytest.mark.parametrize("lora", [{"lora_dropout": 0.5}, {"use_dora": True}, {"lora_bias": True}])
def test_what_is_not_plain_lora_is_left_to_peft(tiny_model, lora):
    model = adapted(tiny_model, **lora)
    before = {name: module.forward for name, module in model.named_modules()}
    add_in_place(model)
    assert all(module.forward == before[name] for name, module in model.named_modules())


def test_adapters_of_another_dtype_than_the_numbers_are_left_to_peft(tiny_model):
    model = adapted(tiny_model)
    model.get_base_model().to(torch.bfloat16)
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(torch.float32 if "lora_" in name else torch.bfloat16)
    theirs = copy.deepcopy(model)
    add_in_place(model)
    torch.testing.assert_close(model(input_ids=TOKENS).logits, theirs(input_ids=TOKENS).logits)
