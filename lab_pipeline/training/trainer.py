"""Train on packed rows with transformers' Trainer, and compute logits only where the loss needs them.

Only a fraction of the tokens are in answers. To compute logits over the vocabulary for the others as well would take much of a
small model's memory and time (`benchmarks/training.py` compares both).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lab_pipeline.config.recipe import PhaseRecipe, Recipe
from lab_pipeline.core.rows import EpochChoice
from lab_pipeline.core.storage import read_json, write_json, written_whole
from lab_pipeline.models.apart import packs_rows
from lab_pipeline.models.packing import IGNORED
from lab_pipeline.training.validation import NOTHING, EpochLoss, ValidationLoss, ValidationSet, choose


class PackedTrainer(Trainer):
    """Transformers' Trainer for packed rows: each batch is one pack from `flatten`, computed without padding."""

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the pack's part of the step's loss: its summed cross entropy in nats, divided by `num_items_in_batch`.

        That is the number of labelled tokens in all packs of the step, so the parts add up to the mean over these tokens. By
        default, it is the number in this pack. With `return_outputs`, the loss is also returned as the only output.
        """
        assert self.model
        parts = [inputs] if packs_rows(self.model.config) else _rows_of(inputs)
        summed = torch.stack([_summed_loss(model, part) for part in parts]).sum()
        loss = summed / (num_items_in_batch if num_items_in_batch is not None else (inputs["labels"] != IGNORED).sum())
        return (loss, {"loss": loss}) if return_outputs else loss


def _summed_loss(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    labels = inputs["labels"][0]
    positions = (labels[1:] != IGNORED).nonzero().squeeze(-1)
    logits = model(
        input_ids=inputs["input_ids"], position_ids=inputs["position_ids"], logits_to_keep=positions, use_cache=False
    ).logits[0]
    return torch.nn.functional.cross_entropy(logits.float(), labels[positions + 1], reduction="sum")


def _rows_of(pack: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """Split a pack into its rows."""
    starts = (pack["position_ids"][0] == 0).nonzero().flatten().tolist()
    return [{name: each[:, start:end] for name, each in pack.items()} for start, end in pairwise([*starts, None])]


_COMPLETE = "complete.json"
"""File that is written last into a saved state. transformers saves file by file and may be killed in between, so a state
without this file is not resumed."""


@dataclass(eq=False)
class _Watcher(TrainerCallback):
    """A callback that passes each step's loss to `on_step` and marks saved states as complete.

    When `interrupted` returns True after a step, it has the state saved and ends the training.
    """

    interrupted: Callable[[], bool]
    on_step: Callable[[float], None] = lambda loss: None

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.on_step(float(logs["loss"]))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        assert args.output_dir
        write_json(Path(args.output_dir) / f"checkpoint-{state.global_step}" / _COMPLETE, {"step": state.global_step})

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **_: Any) -> None:
        if self.interrupted():
            control.should_save = True
            control.should_training_stop = True


@dataclass(eq=False)
class _Validator(TrainerCallback):
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
        if self.validation.rows and not epoch_losses(state):
            with model.disable_adapter():
                base = self.validation.measure(model)
            self._record(state, {**self.validation.measure(model), "base_general": base["general"]})

    def on_step_end(self, args: Any, state: TrainerState, control: Any, model: Any = None, **_: Any) -> None:
        if self.validation.rows and state.global_step % self.steps_per_epoch == 0:
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


@dataclass
class Run:
    """One phase's training run. `folder` holds the saved states from which it resumes, and the adapters of the epochs that were
    the best so far when they ended; when a state is saved, all these but the best are deleted."""

    trainer: PackedTrainer
    watcher: _Watcher
    validator: _Validator
    folder: Path
    planned_steps: int

    @property
    def curve(self) -> list[dict[str, float]]:
        """Number, training loss and learning rate of each step, including the steps before a resume."""
        return [
            {"step": int(entry["step"]), "loss": entry["loss"], "learning_rate": entry["learning_rate"]}
            for entry in self.trainer.state.log_history
            if "loss" in entry
        ]

    @property
    def choice(self) -> EpochChoice:
        """The choice of the best epoch so far, see `validation.choose`."""
        return self.validator.choice(self.trainer.state)

    @property
    def chosen_adapter(self) -> Path | None:
        """Folder of the chosen epoch's adapter; None if the last epoch was chosen, whose adapter is in the model."""
        return None if self.choice["epoch"] == self.choice["of"] else self.validator.adapter(self.choice["epoch"])

    @property
    def saved_step(self) -> int:
        """Number of the last step with a complete saved state, from which `run` resumes; 0 if there is none."""
        return max((read_json(marker)["step"] for marker in self.folder.glob(f"checkpoint-*/{_COMPLETE}")), default=0)

    def run(self) -> bool:
        """Train from the last saved state, or from the beginning; return True at the end, False if interrupted before it."""
        saved = self.saved_step
        self.trainer.train(resume_from_checkpoint=str(self.folder / f"checkpoint-{saved}") if saved else None)
        return self.trainer.state.global_step >= self.planned_steps


def prepare_run(
    model: Any,
    packs: Sequence[dict[str, list[int]]],
    recipe: Recipe,
    phase: PhaseRecipe,
    seed: int,
    folder: Path,
    interrupted: Callable[[], bool],
    validation: ValidationSet = NOTHING,
) -> Run:
    """Return a phase's training run on `packs`, ready to `run`.

    The optimizer is AdamW, on a GPU in its paged 8-bit form.

    Args:
        model: the base model with a trainable adapter.
        packs: model inputs from `flatten`.
        folder: gets the saved states, of which the last two are kept, and adapters of epochs.
        interrupted: asked after each step whether to save the state and stop.
    """
    on_gpu = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=phase.epochs,
        learning_rate=phase.learning_rate,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=recipe.packs_per_step,
        lr_scheduler_type=recipe.scheduler,
        warmup_steps=recipe.warmup_ratio,
        adam_beta1=recipe.adam_betas[0],
        adam_beta2=recipe.adam_betas[1],
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        gradient_checkpointing=recipe.gradient_checkpointing,
        optim="paged_adamw_8bit" if on_gpu else "adamw_torch",
        logging_steps=1,
        save_strategy="steps",
        save_steps=recipe.save_every_steps,
        save_total_limit=2,
        seed=seed,
        data_seed=seed,
        use_cpu=not on_gpu,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        label_names=["labels"],
        disable_tqdm=True,
        report_to="none",
    )
    per_epoch = -(-len(packs) // recipe.packs_per_step)
    watcher = _Watcher(interrupted)
    validator = _Validator(validation, phase.epochs, per_epoch, recipe.validation.general_tolerance, folder)
    trainer = PackedTrainer(
        model=model, args=arguments, train_dataset=packs, data_collator=_one_pack, callbacks=[watcher, validator]
    )
    trainer.remove_callback(PrinterCallback)  # `on_step` reports the steps
    return Run(trainer, watcher, validator, folder, per_epoch * phase.epochs)


def _one_pack(packs: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    (single,) = packs
    return {name: torch.tensor([values]) for name, values in single.items()}
