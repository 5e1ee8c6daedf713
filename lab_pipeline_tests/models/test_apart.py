from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from lab_pipeline.models.apart import packs_rows, tiny_model
from lab_pipeline.models.likelihood import row_losses
from lab_pipeline.models.packing import IGNORED, TokenRow, flatten
from lab_pipeline.training.trainer import prepare_run
from lab_pipeline_tests.training.runs import recipe

ONE_BY_ONE: dict[str, dict[str, Any]] = {
    "mamba": {},
    "mamba2": {},
    "falcon_mamba": {},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 16},
    "bamba": {},
    "jamba": {},
    "lfm2": {"layer_types": ["conv", "conv", "full_attention", "conv"] * 8},
    "qwen3_next": {},
    "minimax": {},
    "nemotron_h": {},
    "gpt_oss": {},
    "opt": {},
    "bloom": {},
}
"""State-space, hybrid, linear-attention and convolution architectures, attention with sinks, and positions counted from a mask.
Each with what its usual configuration has beside the class's defaults."""
TOGETHER = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3_text",
    "phi3",
    "granite",
    "cohere2",
    "gpt2",
    "gpt_neox",
    "mixtral",
    "qwen3_moe",
    "olmoe",
    "deepseek_v3",
    "llama4_text",
)
"""Dense, sliding-window and chunked attention, learned positions, mixtures of experts, latent attention."""
ROWS = [
    TokenRow(tokens, [IGNORED] * 3 + tokens[3:])
    for tokens in ([3 + (7 * index + start) % 90 for index in range(length)] for start, length in enumerate((30, 21, 12, 25)))
]


def config(name: str) -> Any:
    return CONFIG_MAPPING[name](**ONE_BY_ONE.get(name, {})).get_text_config()


@pytest.mark.parametrize("name", [*TOGETHER, *ONE_BY_ONE])
def test_a_row_loses_in_a_pack_what_it_loses_alone(name, monkeypatch):
    model = tiny_model(config(name))
    assert model is not None
    alone = [row_losses(model, [row], 0)[0] for row in ROWS]
    assert row_losses(model, ROWS, 1000) == pytest.approx(alone, abs=1e-3)
    assert packs_rows(config(name)) is packs_rows(model.config) is (name in TOGETHER)
    alike = [TokenRow(ROWS[0].tokens[:20] + row.tokens, [IGNORED] * 20 + row.labels) for row in ROWS]
    assert row_losses(model, alike, 1000) == pytest.approx([row_losses(model, [row], 0)[0] for row in alike], abs=1e-3)
    monkeypatch.setattr("lab_pipeline.models.likelihood.packs_rows", lambda config: True)
    apart = max(abs(one - other) for one, other in zip(row_losses(model, ROWS, 1000), alone, strict=True))
    assert (apart <= 1e-3) is (name in TOGETHER)


def test_rows_that_see_each_other_are_trained_one_by_one(tmp_path):
    model = tiny_model(config("mamba"))
    wanted = recipe()
    trainer = prepare_run(model, [flatten(ROWS)], wanted, wanted.knowledge, 0, tmp_path).trainer

    def gradient(*packs: list[TokenRow]) -> torch.Tensor:
        model.zero_grad()
        step = [{name: torch.tensor([values]) for name, values in flatten(rows).items()} for rows in packs]
        trainer.training_step(model, {"packs": step})
        return torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None])

    assert torch.allclose(gradient(ROWS), gradient(*([row] for row in ROWS)), atol=1e-5)


def test_the_trial_draws_no_random_number_and_changes_no_configuration():
    before, asked = torch.get_rng_state(), config("llama")
    text = asked.to_json_string()
    assert packs_rows(asked)
    assert torch.equal(torch.get_rng_state(), before) and asked.to_json_string() == text


def test_an_architecture_that_cannot_be_tried_is_not_packed(tmp_path):
    class Unknown(PreTrainedConfig):
        model_type = "unheard-of"

    assert tiny_model(Unknown(num_hidden_layers=2)) is None
    assert not packs_rows(Unknown(num_hidden_layers=2))


def test_the_setting_holds_whatever_the_trial_says(tiny_model, tmp_path):
    known: Any = AutoConfig.from_pretrained(tiny_model)
    assert packs_rows(known)
    known.packing = False
    known.save_pretrained(tmp_path)
    assert not packs_rows(AutoConfig.from_pretrained(tmp_path))
