from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from lab_pipeline.models.attention import ROWS_APART, register_rows_apart
from lab_pipeline.models.packing import TokenRow, flatten

SHAPE = {
    "vocab_size": 200,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
MODELS = {
    "dense": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
    "sliding window": lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=8)),
}


def test_attention_with_dropout_is_left_to_torch():
    register_rows_apart()
    model = LlamaForCausalLM(LlamaConfig(**SHAPE, attention_dropout=0.5)).train()
    model.set_attn_implementation(ROWS_APART)
    tokens, positions = torch.ones(1, 10, dtype=torch.long), torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4, 5]])
    one, other = (model(input_ids=tokens, position_ids=positions, use_cache=False).logits for _ in range(2))
    assert one.isfinite().all() and not torch.equal(one, other)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("lengths", [[30, 1, 12, 530], [40]])
def test_rows_apart_gives_the_losses_and_gradients_of_sdpa(kind, lengths):
    register_rows_apart()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = MODELS[kind]()
        rows = [TokenRow(tokens, tokens) for tokens in (torch.randint(0, 200, (length,)).tolist() for length in lengths)]
    packed = {name: torch.tensor([values]) for name, values in flatten(rows).items()}
    found = {}
    for attention in ("sdpa", ROWS_APART):
        model.set_attn_implementation(attention)
        model.zero_grad()
        logits = model(input_ids=packed["input_ids"], position_ids=packed["position_ids"], use_cache=False).logits
        logits.square().sum().backward()
        found[attention] = [logits.detach(), *(parameter.grad.clone() for parameter in model.parameters())]
    for one, other in zip(found["sdpa"], found[ROWS_APART], strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4 * one.abs().max())
