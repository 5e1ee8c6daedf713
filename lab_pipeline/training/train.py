"""Train one phase: make an adapter from a base model, a data set and, in phase 2, the adapter of phase 1."""

from __future__ import annotations

import resource
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from lab_pipeline.config.recipe import Recipe
from lab_pipeline.core.progress import Progress, Say
from lab_pipeline.core.rows import EpochChoice, TrainingRow
from lab_pipeline.core.storage import digest, read_rows, write_json
from lab_pipeline.models.fitting import new_tokens
from lab_pipeline.models.loader import load_tokenizer
from lab_pipeline.models.packing import IGNORED, encode, flatten, pack
from lab_pipeline.training.validation import GROUPS, EpochLoss, ValidationSet


@dataclass(frozen=True)
class TrainingSpec:
    """All inputs of a phase's training; stored in its checkpoint folder as `spec.json`, from which it can be run by hand."""

    phase: Literal["knowledge", "skills"]
    base_model: str
    """The model's folder."""
    dataset: str
    """The data set's Parquet file."""
    continued: str | None
    """Folder of the adapter from the phase before, which is trained further; None to begin with a fresh adapter."""
    recipe: dict[str, object]
    seed: int
    output: str
    """The checkpoint folder."""


@dataclass(frozen=True)
class TrainingReport:
    """Results of a phase, stored as `report.json`; the default values are the results of a phase that trained nothing."""

    rows: int = 0
    validation_rows: int = 0
    tokens: int = 0
    """Number of tokens, prompts included, that all epochs together pass through the model."""
    steps: int = 0
    final_loss: float | None = None
    """Mean training loss of the last five steps."""
    seconds: float = 0.0
    """Time in the last training process; a resumed training also took time before."""
    peak_rss_mib: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)
    """Number, training loss and learning rate of each step."""
    validation: list[EpochLoss] = field(default_factory=list)
    """Losses before the first epoch and after each; empty without validation rows."""
    chosen: EpochChoice = field(default_factory=lambda: EpochChoice(epoch=0, of=0, why="Nothing to learn in this phase"))


def train(spec: TrainingSpec, say: Say, interrupted: Callable[[], bool] = lambda: False) -> TrainingReport | None:
    """Train an adapter as `spec` says, and return the report, which is also stored as `report.json`.

    In the folder `spec.output`, `adapter` is replaced by the chosen epoch's adapter with the tokenizer, and `last` by the last
    epoch's adapter, or deleted if that was chosen. A call resumes from the last saved step, if the data give the same packs. If
    `interrupted`, which is asked after each step, returns True before the end, the state is saved and the result is None.

    Raises:
        TokenError: the chat template refuses a row.
    """
    import torch
    from transformers import set_seed

    from lab_pipeline.training.quantized import load_base, with_adapter
    from lab_pipeline.training.trainer import epoch_losses, prepare_run, save_adapter

    started = time.monotonic()
    recipe = Recipe.model_validate(spec.recipe)
    phase = recipe.phase(spec.phase)
    base, output = Path(spec.base_model), Path(spec.output)
    set_seed(spec.seed)
    tokenizer = load_tokenizer(base)
    data: list[TrainingRow] = read_rows(Path(spec.dataset))
    rows = [row for row in data if row["part"] == "train"]
    validation = ValidationSet.of([row for row in data if row["part"] == "validation"], tokenizer, recipe.pack_tokens)
    packs = [flatten(each) for each in pack([encode(row, tokenizer) for row in rows], recipe.pack_tokens)]
    continued = Path(spec.continued) if spec.continued else None
    model = with_adapter(load_base(base, recipe), recipe.lora, continued, new_tokens(base))
    tokens = sum(len(each["input_ids"]) for each in packs)
    answers = sum(label != IGNORED for each in packs for label in each["labels"])
    say(
        f"{spec.phase}: {len(rows):,} rows in {len(packs):,} packs, {tokens:,} tokens of which {answers:,} carry loss, "
        f"{phase.epochs} epochs on {'GPU' if torch.cuda.is_available() else 'CPU'}; {len(validation.rows):,} validation rows"
    )
    resume = output / f"resume-{digest([digest(each) for each in packs])}"  # so saved states of other packs are not resumed
    run = prepare_run(model, packs, recipe, phase, spec.seed, resume, interrupted, validation)
    progress = Progress(f"{spec.phase} training steps", run.planned_steps, say, done=run.saved_step)
    run.watcher.on_step = lambda loss: progress.advance(note=f"loss {loss:.3f}")
    run.validator.on_epoch = lambda measured: say(
        f"{spec.phase} epoch {measured['epoch']} of {phase.epochs}: validation loss "
        + ", ".join(f"{measured[group]:.3f} ({group})" for group in GROUPS if measured[group] is not None)
    )
    if not run.run():
        return None
    for name in ("adapter", "last"):
        shutil.rmtree(output / name, ignore_errors=True)
    if run.chosen_adapter:
        shutil.copytree(run.chosen_adapter, output / "adapter")
    save_adapter(model, output / ("last" if run.chosen_adapter else "adapter"))
    tokenizer.save_pretrained(output / "adapter")
    chosen = run.choice
    say(f"{spec.phase}: epoch {chosen['epoch']} of {chosen['of']} was taken: {chosen['why']}")
    final = [point["loss"] for point in run.curve[-5:]]
    report = TrainingReport(
        rows=len(rows),
        validation_rows=len(validation.rows),
        tokens=tokens * phase.epochs,
        steps=run.planned_steps,
        final_loss=sum(final) / len(final) if final else None,
        seconds=round(time.monotonic() - started, 1),
        peak_rss_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        curve=run.curve,
        validation=epoch_losses(run.trainer.state),
        chosen=chosen,
    )
    write_json(output / "report.json", asdict(report))
    return report
