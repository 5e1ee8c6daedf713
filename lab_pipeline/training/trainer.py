"""Train on packed rows with transformers' Trainer, and compute logits only where the loss needs them.

Only a fraction of the tokens are in answers. To compute logits over the vocabulary for the others as well would take much of a
small model's memory and time (`benchmarks/training.py` compares both).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainingArguments

from lab_pipeline.config.recipe import PhaseRecipe, Recipe
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.progress import Say
from lab_pipeline.core.rows import EpochChoice
from lab_pipeline.core.storage import digest, read_json
from lab_pipeline.models.apart import packs_rows
from lab_pipeline.models.packing import IGNORED
from lab_pipeline.training.callbacks import COMPLETE, Validator, Watcher
from lab_pipeline.training.loss import summed_loss
from lab_pipeline.training.team import ALONE, Team
from lab_pipeline.training.validation import NOTHING, ValidationSet

Pack = dict[str, torch.Tensor]
"""Input ids, position ids and labels of one pack, each of shape (1, tokens)."""


class PackedTrainer(Trainer):
    """Transformers' Trainer for packed rows: each batch holds the packs of one step, which are computed without padding.

    With several processes, each computes its share of these packs, and the gradients are added up.
    """

    def __init__(self, team: Team, interrupted: Callable[[], bool], say: Say, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.team = team
        self.interrupted = interrupted
        self.say = say
        assert self.model
        self.most_tokens: int | None = None if packs_rows(self.model.config) else 0
        """Longest part of a pack to compute at once, if a whole pack does not fit into memory, or its rows would see each
        other: then each row is computed alone."""

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Compute the gradients of a step, and return its loss, in nats per labelled token.

        If memory runs out, the step is computed again with each pack in two parts, as all later steps are. If `interrupted`
        returns True in any process, the training ends after this step, and its state is saved.

        Raises:
            LabError: Memory ran out again, or the loss is not a number.
        """
        model.train()
        loss = None
        with suppress(torch.OutOfMemoryError):
            loss = self._backward(model, inputs["packs"])
        if loss is None:
            loss = self._backward_in_parts(model, inputs["packs"])
        tuned = [parameter for parameter in model.parameters() if parameter.requires_grad]
        summed, stop = self.team.add_up(tuned, torch.stack([loss, torch.full_like(loss, self.interrupted())]))
        if not summed.isfinite():
            raise LabError(
                f"step {self.state.global_step + 1}: the training loss is not a number; use a recipe with a lower "
                "learning_rate or with lora.dtype: float32"
            )
        if stop:
            self.control.should_training_stop = True
            self.control.should_save = self.team.leads
        return summed

    def _backward_in_parts(self, model: Any, packs: list[Pack]) -> torch.Tensor:
        step = self.state.global_step + 1
        if self.most_tokens is None:
            self.most_tokens = max(pack["labels"].shape[1] for pack in packs) // 2
            self.say(f"step {step}: out of memory; from here on, each pack is computed in parts, with the same result")
            model.zero_grad()
            torch.cuda.empty_cache()
            with suppress(torch.OutOfMemoryError):
                return self._backward(model, packs)
        raise LabError(
            f"step {step}: memory ran out, although each pack was computed in parts; use a recipe with fewer pack_tokens, "
            "with gradient_checkpointing: true or with quantization: nf4"
        )

    def _backward(self, model: Any, packs: list[Pack]) -> torch.Tensor:
        """Compute the gradients of this process's share of the packs, and return its share of the loss.

        Random numbers, as for dropout, depend on seed, step and pack alone: neither a resume nor the number of processes
        changes them.
        """
        learned = sum(int((pack["labels"] != IGNORED).sum()) for pack in packs)
        total = torch.zeros((), device=self.args.device)
        for number in range(self.team.rank, len(packs), self.team.size):
            torch.manual_seed(int(digest([self.args.seed, self.state.global_step, number])[:15], 16))
            for part in parts(packs[number], self.most_tokens):
                loss = self.compute_loss(model, part, num_items_in_batch=learned)
                self.accelerator.backward(loss)
                total += loss.detach()
        return total

    def compute_loss(
        self, model: Any, inputs: Pack, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Return a pack's part of the step's loss: its summed cross entropy in nats, divided by `num_items_in_batch`.

        That is the number of labelled tokens in all packs of the step, so the parts add up to the mean over these tokens. By
        default, it is the number in this pack.
        """
        labels = inputs["labels"][0]
        positions = (labels[1:] != IGNORED).nonzero().squeeze(-1)
        outputs = model(
            input_ids=inputs["input_ids"], position_ids=inputs["position_ids"], logits_to_keep=positions, use_cache=False
        )
        divisor = num_items_in_batch if num_items_in_batch is not None else len(positions)
        return summed_loss(outputs.logits[0], labels[positions + 1], divisor)

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # transformers would look for token ids in the batch, and warn


def parts(pack: Pack, most_tokens: int | None) -> list[Pack]:
    """Split a pack between its rows into parts of at most `most_tokens` tokens, or of one longer row; None leaves it whole."""
    if most_tokens is None:
        return [pack]
    starts = (pack["position_ids"][0] == 0).nonzero().flatten().tolist()
    cuts = [0]
    for start, end in zip(starts, [*starts[1:], pack["labels"].shape[1]], strict=True):
        if end - cuts[-1] > most_tokens and start > cuts[-1]:
            cuts.append(start)
    return [
        {name: values[:, start:end] for name, values in pack.items()}
        for start, end in zip(cuts, [*cuts[1:], None], strict=True)
    ]


@dataclass(frozen=True)
class Watched:
    """How a training is watched and shared: nobody sees it or stops it, and it has one process, unless said otherwise."""

    team: Team = ALONE
    interrupted: Callable[[], bool] = lambda: False
    """Asked after each step, in each process, whether to save the state and stop."""
    say: Say = lambda text: None
    tracking: str | None = None
    """A tool that transformers reports each step to."""


UNWATCHED = Watched()


@dataclass
class Run:
    """One phase's training run. `folder` holds the saved states from which it resumes, and the adapters of the epochs that were
    the best so far when they ended; when a state is saved, all these but the best are deleted."""

    trainer: PackedTrainer
    watcher: Watcher
    validator: Validator
    folder: Path
    steps_per_epoch: int
    planned_steps: int

    @property
    def curve(self) -> list[dict[str, float]]:
        """Number, training loss, learning rate and gradient norm of each step, including the steps before a resume."""
        return [
            {"step": int(entry["step"]), **{name: entry[name] for name in ("loss", "learning_rate", "grad_norm")}}
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
        return max((read_json(marker)["step"] for marker in self.folder.glob(f"checkpoint-*/{COMPLETE}")), default=0)

    def track(self, numbers: Mapping[str, float]) -> None:
        """Hand numbers of the present step to the tool that the training is reported to, if there is one."""
        trainer = self.trainer
        # not `on_log`, which takes the step for logged
        trainer.callback_handler.call_event("on_log", trainer.args, trainer.state, trainer.control, logs=dict(numbers))

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
    watched: Watched = UNWATCHED,
    validation: ValidationSet = NOTHING,
) -> Run:
    """Return a phase's training run on `packs`, ready to `run`.

    The optimizer is AdamW, on a GPU in its paged 8-bit form unless the recipe says otherwise.

    Args:
        model: the base model with a trainable adapter.
        packs: model inputs from `flatten`.
        folder: gets the saved states, of which the last two are kept, and adapters of epochs.
    """
    on_gpu = torch.cuda.is_available()
    team = watched.team
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=phase.epochs,
        learning_rate=phase.learning_rate,
        per_device_train_batch_size=recipe.packs_per_step,
        lr_scheduler_type=recipe.scheduler,
        warmup_steps=recipe.warmup_ratio,
        adam_beta1=recipe.adam_betas[0],
        adam_beta2=recipe.adam_betas[1],
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        gradient_checkpointing=recipe.gradient_checkpointing,
        optim=recipe.optimizer or ("paged_adamw_8bit" if on_gpu else "adamw_torch"),
        neftune_noise_alpha=recipe.neftune_alpha,
        use_liger_kernel=bool(recipe.liger),
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps" if team.leads else "no",
        save_steps=recipe.save_every_steps,
        save_total_limit=2,
        seed=seed,
        data_seed=seed,
        use_cpu=not on_gpu,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        report_to=[watched.tracking] if watched.tracking and team.leads else "none",
    )
    per_epoch = -(-len(packs) // recipe.packs_per_step)
    watcher = Watcher()
    validator = Validator(validation, phase.epochs, per_epoch, recipe.validation.general_tolerance, folder)
    trainer = PackedTrainer(
        team,
        watched.interrupted,
        watched.say,
        model=model,
        args=arguments,
        train_dataset=packs,
        data_collator=_one_step,
        callbacks=[watcher, validator],
    )
    trainer.remove_callback(PrinterCallback)  # `on_step` reports the steps
    return Run(trainer, watcher, validator, folder, per_epoch, per_epoch * phase.epochs)


def _one_step(packs: list[dict[str, list[int]]]) -> dict[str, list[Pack]]:
    return {"packs": [{name: torch.tensor([values]) for name, values in pack.items()} for pack in packs]}
