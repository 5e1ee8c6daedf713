"""One phase of tuning: from a base model and a data set to an adapter."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from lab_pipeline.config.recipe import Recipe
from lab_pipeline.core.progress import Progress, Say
from lab_pipeline.core.storage import read_rows, write_json
from lab_pipeline.models.packing import IGNORED, encode, flatten, pack


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
    """What a phase did; by default that of one without data."""

    rows: int = 0
    """Rows trained on."""
    validation_rows: int = 0
    tokens: int = 0
    """Tokens seen over all epochs."""
    steps: int = 0
    final_loss: float | None = None
    seconds: float = 0.0
    peak_rss_mib: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)
    """Training loss and learning rate by step."""
    validation: list[dict[str, Any]] = field(default_factory=list)
    """Loss on the validation rows (nats per answer token) before training, as epoch 0, and after each epoch: `epoch`, `step`,
    and what `ValidationSet.measure` returns; epoch 0 has the base model's `base_general`, too. Empty without such rows."""
    chosen: dict[str, Any] = field(default_factory=lambda: {"epoch": 0, "of": 0, "why": "Nothing to learn in this phase"})
    """The epoch whose adapter was taken; see `lab_pipeline.training.validation.Choice`."""


def train(spec: TrainingSpec, say: Say, interrupted: Callable[[], bool] = lambda: False) -> TrainingReport | None:
    """Tune an adapter as `spec` says; leave it and `report.json` in `spec.output`, resuming from its last saved step.

    `adapter` is that of the chosen epoch; `last` is that of the last one, where it was not chosen.

    Returns None if `interrupted` asked for an end; the state is then saved and the next call goes on from it.
    """
    import torch
    from transformers import AutoTokenizer, set_seed

    from lab_pipeline.training.quantized import load_base, with_adapter
    from lab_pipeline.training.trainer import make_trainer, save_adapter
    from lab_pipeline.training.validation import ValidationSet

    started = time.monotonic()
    recipe = Recipe.model_validate(spec.recipe)
    phase = recipe.phase(spec.phase)
    output = Path(spec.output)
    set_seed(spec.seed)
    tokenizer = AutoTokenizer.from_pretrained(spec.base_model)
    data = read_rows(Path(spec.dataset))
    rows = [row for row in data if row["part"] == "train"]
    validation = ValidationSet.of([row for row in data if row["part"] == "validation"], tokenizer, recipe.pack_tokens)
    packs = [flatten(each) for each in pack([encode(row, tokenizer) for row in rows], recipe.pack_tokens)]
    model = with_adapter(
        load_base(Path(spec.base_model), recipe), recipe.lora, Path(spec.continued) if spec.continued else None
    )
    tokens = sum(len(each["input_ids"]) for each in packs)
    answers = sum(label != IGNORED for each in packs for label in each["labels"])
    say(
        f"{spec.phase}: {len(rows):,} rows in {len(packs):,} packs, {tokens:,} tokens of which {answers:,} carry loss, "
        f"{phase.epochs} epochs on {'GPU' if torch.cuda.is_available() else 'CPU'}; {len(validation.rows):,} validation rows"
    )
    trainer = make_trainer(model, packs, recipe, phase, spec.seed, output / "resume", interrupted, validation)
    steps = trainer.planned_steps
    progress = Progress(f"{spec.phase} training steps", steps, say, done=trainer.saved_step)
    trainer.on_step = lambda loss: progress.advance(note=f"loss {loss:.3f}")
    trainer.on_epoch = lambda found: say(
        f"{spec.phase} epoch {found['epoch']} of {phase.epochs}: validation loss "
        + ", ".join(f"{found[part]:.3f} ({part})" for part in ("leaves", "general") if found[part] is not None)
    )
    finished = trainer.run()
    if not finished:
        return None
    for name in ("adapter", "last"):
        shutil.rmtree(output / name, ignore_errors=True)
    if trainer.chosen_adapter:
        shutil.copytree(trainer.chosen_adapter, output / "adapter")
    save_adapter(model, output / ("last" if trainer.chosen_adapter else "adapter"))
    tokenizer.save_pretrained(output / "adapter")
    chosen = trainer.choice
    say(f"{spec.phase}: epoch {chosen.epoch} of {chosen.of} was taken: {chosen.why}")
    curve = trainer.curve
    report = TrainingReport(
        rows=len(rows),
        validation_rows=len(validation.rows),
        tokens=tokens * phase.epochs,
        steps=steps,
        final_loss=sum(point["loss"] for point in curve[-5:]) / len(curve[-5:]) if curve else None,
        seconds=round(time.monotonic() - started, 1),
        peak_rss_mib=_peak_rss_mib(),
        curve=curve,
        validation=trainer.validation,
        chosen=asdict(chosen),
    )
    write_json(output / "report.json", asdict(report))
    return report


def _peak_rss_mib() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
