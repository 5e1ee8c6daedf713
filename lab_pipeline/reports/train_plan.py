"""Tell what a training would take before it runs: recipe, steps, tokens, memory and, where a speed is known, time."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any, get_args

import pyarrow.parquet as pq

from lab_pipeline.config.recipe import Recipe
from lab_pipeline.config.settings import Settings
from lab_pipeline.core.errors import NotMaterialized
from lab_pipeline.core.formats import duration
from lab_pipeline.core.home import Home
from lab_pipeline.core.machine import gpus_gib
from lab_pipeline.datasets.dataset import Dataset, Phase, load_dataset
from lab_pipeline.models.base_model import BaseModel, fetch_model
from lab_pipeline.models.loader import load_tokenizer
from lab_pipeline.models.packing import encode
from lab_pipeline.training.checkpoint import Checkpoint, load_checkpoint
from lab_pipeline.training.choice import choose_recipe

_SAMPLE_ROWS = 500


def train_plan(home: Home, settings: Settings) -> str:
    """Return the plan as text. A base model from the hub is downloaded, because its size and tokenizer decide.

    Tokens are estimated from the first 500 rows of each data set.

    Raises:
        LabError: The settings name something that cannot be used, or no recipe fits.
    """
    base = fetch_model(home, settings.base_model)
    choice = choose_recipe(home, settings)
    recipe = choice.recipe
    gpus = gpus_gib()
    lines = [
        f"base model: {base.identity}",
        f"recipe: {choice.name}, because {choice.why}",
        f"on: {min(len(gpus), recipe.packs_per_step) or 'no'} GPU(s){'' if gpus else ', so on the CPU'}",
        memory_text(base.folder, recipe),
    ]
    for phase in get_args(Phase):
        try:
            lines.append(_phase_text(load_dataset(home, phase), base, recipe, _known_speed(home, base, recipe)))
        except NotMaterialized as error:
            lines.append(f"{phase}: {error}")
    return "\n".join(lines)


def _phase_text(dataset: Dataset, base: BaseModel, recipe: Recipe, speed: float | None) -> str:
    if dataset.rows == 0 or (dataset.phase == "knowledge" and recipe.stacked):
        return f"{dataset.phase}: nothing to train"
    tokenizer = load_tokenizer(base.folder)
    with pq.ParquetFile(dataset.path) as source:
        batches = (batch.to_pylist() for batch in source.iter_batches(_SAMPLE_ROWS))
        sample = list(islice((row for batch in batches for row in batch if row["part"] == "train"), _SAMPLE_ROWS))
    mean = sum(len(encode(row, tokenizer).tokens) for row in sample) / len(sample)
    phase = recipe.phase(dataset.phase)
    packs = max(1, round(mean * dataset.rows / recipe.pack_tokens + 0.5))
    steps = -(-packs // recipe.packs_per_step) * phase.epochs
    tokens = mean * dataset.rows * phase.epochs
    took = duration(tokens / speed) if speed else "unknown, as nothing was trained so before"
    return (
        f"{dataset.phase}: {dataset.rows:,} rows of about {mean:,.0f} tokens in about {packs:,} packs, {phase.epochs} epochs: "
        f"about {steps:,} steps, {tokens:,.0f} tokens; time: {took}"
    )


def _known_speed(home: Home, base: BaseModel, recipe: Recipe) -> float | None:
    """Return the tokens per second of the last training of this base model with packs of this size in this home."""
    finished = [load_checkpoint(path.parent) for path in home.checkpoints.glob("*/meta.json")]

    def alike(one: Checkpoint | None) -> bool:
        return bool(
            one
            and one.meta["base_model"] == base.identity
            and one.meta["recipe"]["pack_tokens"] == recipe.pack_tokens
            and one.report.tokens_per_second
        )

    last = max((one for one in finished if one and alike(one)), key=lambda one: one.meta["finished_at"], default=None)
    return last.report.tokens_per_second if last else None


def memory_text(model: Path, recipe: Recipe) -> str:
    """Estimate the memory that a training takes on each GPU, or on the CPU, from the shape of the base model.

    Weights: 4.127 bits for each parameter of a linear layer in NF4 with double quantization (QLoRA, arXiv 2305.14314, section
    3), else 16. Adapter: weights, gradients and two moments, which are of 8 bits on a GPU. Activations: 34 bytes for each
    token, layer and hidden unit (arXiv 2205.05198, equation 1, without attention scores), or with gradient checkpointing 2, and
    34 in one layer. Logits: 4 bytes for each token and word of the vocabulary (see `summed_loss`), as if all carried loss.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config: Any = AutoConfig.from_pretrained(model).get_text_config()
    with torch.device("meta"):
        shape = AutoModelForCausalLM.from_config(config)
    head = shape.get_output_embeddings()
    linear = [each for each in shape.modules() if isinstance(each, torch.nn.Linear) and each is not head]
    in_linear = sum(each.weight.numel() for each in linear)
    others = sum(each.numel() for each in shape.parameters()) - in_linear
    adapter = sum(recipe.lora.rank * (each.in_features + each.out_features) for each in linear)
    size = 4 if recipe.lora.dtype == "float32" else 2
    moments = 2 if torch.cuda.is_available() else 2 * size
    per_unit = 34 + 2 * config.num_hidden_layers if recipe.gradient_checkpointing else 34 * config.num_hidden_layers
    parts = {
        "weights": in_linear * (4.127 / 8 if recipe.quantization == "nf4" else 2) + others * 2,
        "adapter and optimizer": adapter * (2 * size + moments),
        "activations": recipe.pack_tokens * config.hidden_size * per_unit,
        "logits": recipe.pack_tokens * config.vocab_size * 4,
    }
    named = ", ".join(f"{name} {size / 2**30:.1f}" for name, size in parts.items())
    return f"memory: about {sum(parts.values()) / 2**30:.1f} GiB beside what Python and CUDA take ({named}); an estimate"
