"""Train one phase: make an adapter from a base model, a data set and, in phase 2, the adapter of phase 1."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from lab_pipeline.config.recipe import Recipe
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.progress import Progress, Say
from lab_pipeline.core.rows import EpochChoice, Split
from lab_pipeline.core.storage import read_json, write_json
from lab_pipeline.models.base_model import public_name
from lab_pipeline.models.fitting import new_tokens
from lab_pipeline.models.loader import load_tokenizer
from lab_pipeline.models.packing import pack
from lab_pipeline.training.failure import Interrupted
from lab_pipeline.training.pace import Pace, machine, operations_per_token, peak_gpu_mib, peak_operations, peak_rss_mib
from lab_pipeline.training.team import ALONE, Team
from lab_pipeline.training.token_file import Packs, TokenFile, token_file, write_token_file
from lab_pipeline.training.validation import GROUPS, NOTHING, EpochLoss, ValidationSet


@dataclass(frozen=True)
class TrainingSpec:
    """All inputs of a phase's training; stored in its checkpoint folder as `spec.json`, from which it can be run by hand.

    Stored paths start at the checkpoint folder, so that they hold in a home that was moved.
    """

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
    base_identity: str = ""
    """Name of the base model in records (see `model_identity`), by which adapters name it; '' leaves it unnamed."""


@dataclass(frozen=True)
class TrainingReport:
    """Results of a phase, stored as `report.json`; the default values are the results of a phase that trained nothing."""

    rows: int = 0
    validation_rows: int = 0
    rows_cut: int = 0
    """Number of training rows that were longer than a pack, and were cut into pieces."""
    rows_unlearnable: int = 0
    """Number of training rows without an answer to learn, which were left out."""
    tokens: int = 0
    """Number of tokens, prompts included, that all epochs together pass through the model."""
    steps: int = 0
    final_loss: float | None = None
    """Mean training loss of the last five steps."""
    seconds: float = 0.0
    """Time in the last training process; a resumed training also took time before."""
    tokens_per_second: float | None = None
    """In the last training process, or processes together, validation included."""
    mfu: float | None = None
    """Model FLOPs utilization, from 0 to 1 (see `Pace.mfu`); None where it is unknown."""
    processes: int = 1
    peak_rss_mib: int = 0
    peak_gpu_mib: int | None = None
    """Peak of GPU memory in tensors; None on a CPU. Like `peak_rss_mib`, of the first process."""
    curve: list[dict[str, float]] = field(default_factory=list)
    """Number, training loss, learning rate and gradient norm of each step."""
    validation: list[EpochLoss] = field(default_factory=list)
    """Losses before the first epoch and after each; empty without validation rows."""
    chosen: EpochChoice = field(default_factory=lambda: EpochChoice(epoch=0, of=0, why="Nothing to learn in this phase"))


def train(
    spec: TrainingSpec, say: Say, interrupted: Callable[[], bool] = lambda: False, team: Team = ALONE
) -> TrainingReport | None:
    """Train an adapter as `spec` says, and return the report, which is also stored as `report.json`.

    In the folder `spec.output`, `adapter` is replaced by the chosen epoch's adapter with the tokenizer, and `last` by the last
    epoch's adapter, or deleted if that was chosen. A call resumes from the last saved step, if the data give the same packs,
    with any number of processes. If `interrupted`, which is asked after each step, returns True before the end, the state is
    saved and the result is None.

    Args:
        team: the processes of this training. All call this function; only the first says, validates and writes anything.

    Raises:
        TokenError: the chat template refuses a row.
        LabError: there is nothing to learn, the loss is not a number, or memory ran out.
    """
    from transformers import set_seed

    from lab_pipeline.training.callbacks import epoch_losses
    from lab_pipeline.training.quantized import load_base, with_adapter
    from lab_pipeline.training.trainer import Watched, prepare_run

    started = time.monotonic()
    recipe = Recipe.model_validate(spec.recipe)
    phase = recipe.phase(spec.phase)
    base, output = Path(spec.base_model), Path(spec.output)
    set_seed(spec.seed)
    try:
        rows, validation = _encoded(spec, recipe.pack_tokens, say, interrupted, team)
    except Interrupted:
        return None
    packs = Packs(rows, pack(rows.lengths, recipe.pack_tokens))
    if not len(packs):
        raise LabError(f"{spec.dataset}: none of {rows.counts.rows:,} rows to train on has an answer to learn")
    continued = Path(spec.continued) if spec.continued else None
    model = with_adapter(load_base(base, recipe), recipe.lora, continued, new_tokens(base))
    tokens = sum(rows.lengths)
    epochs = "1 epoch" if phase.epochs == 1 else f"{phase.epochs} epochs"
    say(
        f"{spec.phase}: {rows.counts.rows:,} rows in {len(packs):,} packs, {tokens:,} tokens of which {rows.learned:,} carry "
        f"loss, {epochs} on {machine(team.size)}; {len(validation):,} validation rows"
    )
    for part, counts in (("training", rows.counts), ("validation", validation.counts)):
        if counts.cut or counts.unlearnable:
            say(
                f"{spec.phase}: of {counts.rows:,} {part} rows, {counts.cut:,} are longer than pack_tokens "
                f"({recipe.pack_tokens:,}) and were cut, {counts.unlearnable:,} have no answer and are left out"
            )
    resume = output / f"resume-{packs.digest}"  # so saved states of other packs are not resumed
    watched = Watched(team, interrupted, say, os.environ.get("LAB_TRACKING"))
    held_out = ValidationSet(validation, validation.leaves, recipe.pack_tokens) if team.leads else NOTHING
    run = prepare_run(model, packs, recipe, phase, spec.seed, resume, watched, held_out)
    pace = Pace(
        Progress(f"{spec.phase} training steps", run.planned_steps, say, done=run.saved_step),
        tokens / run.steps_per_epoch,
        operations_per_token(base, model),
        peak_operations(team.size),
    )

    def on_step(log: dict[str, float]) -> None:
        pace.step(log)
        measured = {
            "tokens_per_second": pace.tokens_per_second,
            "mfu": pace.mfu,
            "peak_memory_mib": peak_gpu_mib() or peak_rss_mib(),
        }
        run.track({name: value for name, value in measured.items() if value is not None})

    def on_epoch(measured: EpochLoss) -> None:
        losses = {group: loss for group in GROUPS if (loss := measured[group]) is not None}
        shown = ", ".join(f"{loss:.3f} ({group})" for group, loss in losses.items())
        say(f"{spec.phase} epoch {measured['epoch']} of {phase.epochs}: validation loss {shown}")
        run.track({f"eval_{group}": loss for group, loss in losses.items()})

    run.watcher.on_step, run.validator.on_epoch = on_step, on_epoch
    if not run.run():
        return None
    final = [point["loss"] for point in run.curve[-5:]]
    report = TrainingReport(
        rows=rows.counts.rows,
        validation_rows=len(validation),
        rows_cut=rows.counts.cut,
        rows_unlearnable=rows.counts.unlearnable,
        tokens=tokens * phase.epochs,
        steps=run.planned_steps,
        final_loss=sum(final) / len(final) if final else None,
        seconds=round(time.monotonic() - started, 1),
        tokens_per_second=pace.tokens_per_second,
        mfu=pace.mfu,
        processes=team.size,
        peak_rss_mib=peak_rss_mib(),
        peak_gpu_mib=peak_gpu_mib(),
        curve=run.curve,
        validation=epoch_losses(run.trainer.state),
        chosen=run.choice,
    )
    if team.leads:
        _store(output, model, run.chosen_adapter, spec, report)
        say(f"{spec.phase}: epoch {report.chosen['epoch']} of {report.chosen['of']} was taken: {report.chosen['why']}")
    return report


def _encoded(
    spec: TrainingSpec, pack_tokens: int, say: Say, interrupted: Callable[[], bool], team: Team
) -> tuple[TokenFile, TokenFile]:
    """Have the first process encode the rows, unless an earlier training did; return those to train and to validate on."""
    dataset, base = Path(spec.dataset), Path(spec.base_model)
    files = [token_file(Path(spec.output), dataset, part, base, pack_tokens) for part in get_args(Split)]
    for path in files if team.leads else ():
        write_token_file(path, dataset, base, pack_tokens, say, interrupted)
    team.wait()
    train, validation = (TokenFile(path) for path in files)
    return train, validation


def _store(output: Path, model: Any, chosen: Path | None, spec: TrainingSpec, report: TrainingReport) -> None:
    from lab_pipeline.training.callbacks import save_adapter

    for name in ("adapter", "last"):
        shutil.rmtree(output / name, ignore_errors=True)
    if chosen:
        shutil.copytree(chosen, output / "adapter")
    save_adapter(model, output / ("last" if chosen else "adapter"))
    for config in output.glob("*/adapter_config.json"):
        write_json(config, {**read_json(config), "base_model_name_or_path": public_name(spec.base_identity)})
        (config.parent / "README.md").unlink(missing_ok=True)  # peft's empty template
    load_tokenizer(Path(spec.base_model)).save_pretrained(output / "adapter")
    write_json(output / "report.json", asdict(report))
