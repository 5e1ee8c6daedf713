"""transformers' Trainer for packed rows: it computes logits only where the loss needs them.

Answers are a fraction of the tokens, and a vocabulary's width of logits for each of the others would take much of a small
model's memory and time (`benchmarks/training.py` compares).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lab_pipeline.config.recipe import PhaseRecipe, Recipe
from lab_pipeline.core.storage import read_json, write_json, written_whole
from lab_pipeline.models.packing import IGNORED
from lab_pipeline.training.validation import NOTHING, Choice, ValidationSet, choose


class PackedTrainer(Trainer):
    """Trains on one pack at a time, given as flat `input_ids`, `position_ids` and `labels`."""

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean cross entropy over the labelled tokens of the whole step, each predicted from the token before it."""
        labels = inputs["labels"][0]
        positions = (labels[1:] != IGNORED).nonzero().squeeze(-1)
        outputs = model(
            input_ids=inputs["input_ids"],
            position_ids=inputs["position_ids"],
            logits_to_keep=positions,
            use_cache=False,
        )
        summed = torch.nn.functional.cross_entropy(outputs.logits[0].float(), labels[positions + 1], reduction="sum")
        loss = summed / (num_items_in_batch if num_items_in_batch is not None else len(positions))
        return (loss, outputs) if return_outputs else loss


_COMPLETE = "complete.json"
"""Last file of a saved state: a process may be killed while transformers saves, which it does file by file."""


class _Watcher(TrainerCallback):
    """Reports steps, marks saved states as complete, and ends the run (with a save) when it is interrupted."""

    def __init__(self, interrupted: Callable[[], bool]) -> None:
        self.interrupted = interrupted
        self.on_step: Callable[[float], None] = lambda loss: None

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.on_step(float(logs["loss"]))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        assert args.output_dir
        write_json(Path(args.output_dir) / f"checkpoint-{state.global_step}" / _COMPLETE, {"step": state.global_step})

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.interrupted():
            control.should_save = True
            control.should_training_stop = True


class _Validator(TrainerCallback):
    """Measures the model before the first epoch and after each, and keeps the adapter of the epoch that is the best so far.

    It works at an epoch's last step rather than at its end, which a run that resumes from a state saved at that step never
    comes to. What it finds goes into the trainer's log, and so into that very state: whatever is killed, log and state agree.
    """

    def __init__(self, validation: ValidationSet, epochs: int, steps_per_epoch: int, tolerance: float, folder: Path) -> None:
        self.validation = validation
        self.epochs = epochs
        self.steps_per_epoch = steps_per_epoch
        self.tolerance = tolerance
        self.folder = folder
        self.on_epoch: Callable[[dict[str, Any]], None] = lambda measured: None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        if self.validation.rows and not measured(state):
            with model.disable_adapter():
                base = self.validation.measure(model)
            self._record(state, {**self.validation.measure(model), "base_general": base["general"]})

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        if self.validation.rows and state.global_step % self.steps_per_epoch == 0:
            self._record(state, self.validation.measure(model))
            epoch = state.global_step // self.steps_per_epoch
            if self.choice(state).epoch == epoch:
                save_adapter(model, self.adapter(epoch))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The saved state knows the best epoch; until now an earlier state might have been resumed from, with its own."""
        for folder in self.folder.glob("epoch-*"):
            if folder != self.adapter(self.choice(state).epoch):
                shutil.rmtree(folder)

    def choice(self, state: TrainerState) -> Choice:
        found = measured(state)
        base = found[0]["base_general"] if found else None
        return choose(found[1:], self.epochs, base, self.tolerance)

    def adapter(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch}"

    def _record(self, state: TrainerState, found: dict[str, Any]) -> None:
        entry = {"epoch": state.global_step // self.steps_per_epoch, "step": state.global_step, **found}
        log: list[Any] = state.log_history
        log.append({"validation": entry})
        self.on_epoch(entry)


def measured(state: TrainerState) -> list[dict[str, Any]]:
    """What validation found so far: before the first epoch, and after each."""
    log: list[Any] = state.log_history
    return [entry["validation"] for entry in log if "validation" in entry]


def save_adapter(model: Any, folder: Path) -> None:
    """Write the adapter as a folder that is there whole or not at all, in the place of an earlier one."""
    shutil.rmtree(folder, ignore_errors=True)
    with written_whole(folder) as scratch:
        model.save_pretrained(scratch)


class Run:
    """One phase's training run, resumable from `folder`."""

    def __init__(
        self, trainer: PackedTrainer, watcher: _Watcher, validator: _Validator, folder: Path, planned_steps: int
    ) -> None:
        self.trainer = trainer
        self.watcher = watcher
        self.validator = validator
        self.folder = folder
        self.planned_steps = planned_steps

    @property
    def on_step(self) -> Callable[[float], None]:
        return self.watcher.on_step

    @on_step.setter
    def on_step(self, report: Callable[[float], None]) -> None:
        self.watcher.on_step = report

    @property
    def on_epoch(self) -> Callable[[dict[str, Any]], None]:
        return self.validator.on_epoch

    @on_epoch.setter
    def on_epoch(self, report: Callable[[dict[str, Any]], None]) -> None:
        self.validator.on_epoch = report

    @property
    def curve(self) -> list[dict[str, float]]:
        """Loss and learning rate of every step, those before a resume included."""
        return [
            {"step": entry["step"], "loss": entry["loss"], "learning_rate": entry["learning_rate"]}
            for entry in self.trainer.state.log_history
            if "loss" in entry
        ]

    @property
    def validation(self) -> list[dict[str, Any]]:
        """What each measurement of the validation rows found, those before a resume included."""
        return measured(self.trainer.state)

    @property
    def choice(self) -> Choice:
        return self.validator.choice(self.trainer.state)

    @property
    def chosen_adapter(self) -> Path | None:
        """Folder of the adapter of the chosen epoch; None if it is the last, which the model holds."""
        return None if self.choice.epoch == self.choice.of else self.validator.adapter(self.choice.epoch)

    @property
    def saved_step(self) -> int:
        """The last step whose state was saved, from which `run` goes on; 0 if there is none."""
        return max((read_json(marker)["step"] for marker in self.folder.glob(f"checkpoint-*/{_COMPLETE}")), default=0)

    def run(self) -> bool:
        """Train to the end; False if interrupted before it."""
        saved = self.saved_step
        self.trainer.train(resume_from_checkpoint=str(self.folder / f"checkpoint-{saved}") if saved else None)
        return self.trainer.state.global_step >= self.planned_steps


def make_trainer(
    model: Any,
    packs: list[dict[str, list[int]]],
    recipe: Recipe,
    phase: PhaseRecipe,
    seed: int,
    folder: Path,
    interrupted: Callable[[], bool],
    validation: ValidationSet = NOTHING,
) -> Run:
    """Set up a phase's run over `packs`."""
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
    trainer.remove_callback(PrinterCallback)  # steps are said by `on_step`
    return Run(trainer, watcher, validator, folder, per_epoch * phase.epochs)


def _one_pack(packs: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    (single,) = packs
    return {name: torch.tensor([values]) for name, values in single.items()}
