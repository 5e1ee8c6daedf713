"""Watch a training: report its steps, measure its epochs, and keep saved states and the adapter of the best epoch."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lab_pipeline.core.rows import EpochChoice
from lab_pipeline.core.storage import write_json, written_whole
from lab_pipeline.training.validation import EpochLoss, ValidationLoss, ValidationSet, choose

COMPLETE = "complete.json"
"""File that is written last into a saved state. transformers saves file by file and may be killed in between, so a state
without this file is not resumed."""


@dataclass(eq=False)
class Watcher(TrainerCallback):
    """A callback that passes each step's log to `on_step` and marks saved states as complete."""

    on_step: Callable[[dict[str, float]], None] = lambda log: None

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.on_step(logs)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        assert args.output_dir
        write_json(Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE, {"step": state.global_step})


@dataclass(eq=False)
class Validator(TrainerCallback):
    """A callback that measures validation losses before the first epoch and after each, and keeps the best epoch's adapter.

    It measures at the event of an epoch's last step, not at the event of the epoch's end, which a run never gets that resumes
    from a state saved at that step. Losses go into the trainer's log, which is saved in that same state, so that log and state
    agree even after a kill. Without validation rows, it does nothing.
    """

    validation: ValidationSet
    epochs: int
    steps_per_epoch: int
    tolerance: float
    folder: Path
    on_epoch: Callable[[EpochLoss], None] = lambda measured: None

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, model: Any = None, **_: Any) -> None:
        if len(self.validation.rows) and not epoch_losses(state):
            with model.disable_adapter():
                base = self.validation.measure(model)
            self._record(state, {**self.validation.measure(model), "base_general": base["general"]})

    def on_step_end(self, args: Any, state: TrainerState, control: Any, model: Any = None, **_: Any) -> None:
        if len(self.validation.rows) and state.global_step % self.steps_per_epoch == 0:
            self._record(state, self.validation.measure(model))
            epoch = state.global_step // self.steps_per_epoch
            if self.choice(state)["epoch"] == epoch:
                save_adapter(model, self.adapter(epoch))

    def on_save(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Remove the adapters of all epochs but the best so far.

        They are kept until a state is saved, because a resume from the state before it might choose one of them again.
        """
        for folder in self.folder.glob("epoch-*"):
            if folder != self.adapter(self.choice(state)["epoch"]):
                shutil.rmtree(folder)

    def choice(self, state: TrainerState) -> EpochChoice:
        losses = epoch_losses(state)
        base = losses[0]["base_general"] if losses else None
        return choose(losses[1:], self.epochs, base, self.tolerance)

    def adapter(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch}"

    def _record(self, state: TrainerState, losses: ValidationLoss) -> None:
        entry: EpochLoss = {"epoch": state.global_step // self.steps_per_epoch, "step": state.global_step, **losses}
        log: list[Any] = state.log_history
        log.append({"validation": entry})
        self.on_epoch(entry)


def epoch_losses(state: TrainerState) -> list[EpochLoss]:
    """Return the validation losses in the trainer's log: before the first epoch (as epoch 0), and after each finished one."""
    log: list[Any] = state.log_history
    return [entry["validation"] for entry in log if "validation" in entry]


def save_adapter(model: Any, folder: Path) -> None:
    """Delete the folder, then write the model's adapter there, whole or not at all; if that fails, the old adapter is gone."""
    shutil.rmtree(folder, ignore_errors=True)
    with written_whole(folder) as scratch:
        model.save_pretrained(scratch)
