"""One phase of tuning: from a base model and a data set to an adapter."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lab_pipeline.progress import Progress, Say
from lab_pipeline.storage import read_rows, write_json
from lab_pipeline.training.packing import IGNORED, encode, flatten, pack
from lab_pipeline.training.recipe import Recipe


@dataclass(frozen=True)
class TrainingSpec:
    """All that a phase depends on; kept in its checkpoint folder as `spec.json`, from which it can be run by hand."""

    phase: Literal["knowledge", "skills"]
    base_model: str
    dataset: str
    continued: str | None
    """Adapter folder of the phase before."""
    recipe: dict[str, Any]
    seed: int
    output: str


@dataclass(frozen=True)
class TrainingReport:
    rows: int
    tokens: int
    """Tokens seen over all epochs."""
    steps: int
    final_loss: float | None
    seconds: float
    peak_rss_mib: int
    curve: list[dict[str, float]]
    """Training loss and learning rate by step."""


def train(spec: TrainingSpec, say: Say, interrupted: Callable[[], bool] = lambda: False) -> TrainingReport | None:
    """Tune an adapter as `spec` says; leave it and `report.json` in `spec.output`, resuming from its last saved step.

    Returns None if `interrupted` asked for an end; the state is then saved and the next call goes on from it.
    """
    import torch
    from transformers import AutoTokenizer, set_seed

    from lab_pipeline.training.quantized import load_base, with_adapter
    from lab_pipeline.training.trainer import make_trainer

    started = time.monotonic()
    recipe = Recipe.model_validate(spec.recipe)
    phase = recipe.phase(spec.phase)
    output = Path(spec.output)
    set_seed(spec.seed)
    tokenizer = AutoTokenizer.from_pretrained(spec.base_model)
    rows = read_rows(Path(spec.dataset))
    packs = [flatten(each) for each in pack([encode(row, tokenizer) for row in rows], recipe.pack_tokens)]
    model = with_adapter(
        load_base(Path(spec.base_model), recipe), recipe.lora, Path(spec.continued) if spec.continued else None
    )
    tokens = sum(len(each["input_ids"]) for each in packs)
    answers = sum(label != IGNORED for each in packs for label in each["labels"])
    say(
        f"{spec.phase}: {len(rows):,} rows in {len(packs):,} packs, {tokens:,} tokens of which {answers:,} carry loss, "
        f"{phase.epochs} epochs on {'GPU' if torch.cuda.is_available() else 'CPU'}"
    )
    trainer = make_trainer(model, packs, recipe, phase, spec.seed, output / "resume", interrupted)
    steps = trainer.planned_steps
    progress = Progress(f"{spec.phase} training steps", steps, say)
    trainer.on_step = lambda loss: progress.advance(note=f"loss {loss:.3f}")
    finished = trainer.run()
    if not finished:
        return None
    for config in model.peft_config.values():  # peft's set has another order in each process, and so would the saved file
        config.target_modules = sorted(config.target_modules)
    model.save_pretrained(output / "adapter")
    tokenizer.save_pretrained(output / "adapter")
    curve = trainer.curve
    report = TrainingReport(
        rows=len(rows),
        tokens=tokens * phase.epochs,
        steps=steps,
        final_loss=sum(point["loss"] for point in curve[-5:]) / len(curve[-5:]) if curve else None,
        seconds=round(time.monotonic() - started, 1),
        peak_rss_mib=_peak_rss_mib(),
        curve=curve,
    )
    write_json(output / "report.json", asdict(report))
    return report


def _peak_rss_mib() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
