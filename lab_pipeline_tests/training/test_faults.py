"""What goes wrong in a training is said in one sentence, and nothing that was saved is lost."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.machine import as_lab_error
from lab_pipeline.training import callbacks
from lab_pipeline.training.train import train
from lab_pipeline.training.trainer import PackedTrainer, parts
from lab_pipeline_tests.training.runs import recipe, rows_to_validate_on, training_row, training_spec, twelve_rows

COMPUTED = PackedTrainer.compute_loss


def short_of_memory(most: int) -> Any:
    """A loss that fits into memory for so many tokens at most; half of the graph's gradients are made before it runs out."""

    def compute_loss(self: Any, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        loss = COMPUTED(self, model, inputs, return_outputs, num_items_in_batch)
        if inputs["labels"].shape[1] > most:
            loss.backward()
            raise torch.OutOfMemoryError("out of memory")
        return loss

    return compute_loss


def test_out_of_memory_a_step_is_computed_again_in_parts_with_the_same_result(tiny_model, tmp_path, monkeypatch):
    rows = twelve_rows()
    wanted = recipe(epochs=2, pack_tokens=512)
    whole, short = (training_spec(tmp_path / name, tiny_model, rows, wanted) for name in ("whole", "short"))
    report = train(whole, lambda text: None)
    monkeypatch.setattr(PackedTrainer, "compute_loss", short_of_memory(300))
    said: list[str] = []
    again = train(short, said.append)
    assert report and again and again.steps == report.steps
    assert [point["loss"] for point in again.curve] == pytest.approx([point["loss"] for point in report.curve], abs=0.02)
    assert sum("out of memory; from here on, each pack is computed in parts" in text for text in said) == 1
    one, other = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("whole", "short"))
    assert all(torch.allclose(one[name], other[name], atol=2e-2) for name in one)


def test_out_of_memory_again_is_an_error_with_what_to_change(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(PackedTrainer, "compute_loss", short_of_memory(10))
    spec = training_spec(tmp_path / "run", tiny_model, twelve_rows(), recipe())
    with pytest.raises(LabError, match="step 1: memory ran out, although .* fewer pack_tokens"):
        train(spec, lambda text: None)


def test_a_pack_is_split_between_rows_only():
    ids = torch.arange(10)[None]
    pack = {"input_ids": ids, "labels": ids, "position_ids": torch.tensor([[0, 1, 2, 0, 1, 0, 0, 1, 2, 3]])}
    assert parts(pack, None) == [pack]
    assert [part["labels"][0].tolist() for part in parts(pack, 5)] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert [part["labels"][0].tolist() for part in parts(pack, 1)] == [[0, 1, 2], [3, 4], [5], [6, 7, 8, 9]]


def test_a_loss_that_is_no_number_ends_the_training_and_keeps_what_was_saved(tiny_model, tmp_path, monkeypatch):
    def compute_loss(self: Any, *arguments: Any, **named: Any) -> Any:
        return COMPUTED(self, *arguments, **named) * (float("nan") if self.state.global_step == 5 else 1)

    monkeypatch.setattr(PackedTrainer, "compute_loss", compute_loss)
    spec = training_spec(tmp_path / "run", tiny_model, twelve_rows(), recipe(save_every_steps=2))
    with pytest.raises(LabError, match="step 6: the training loss is not a number; use a recipe with a lower learning_rate"):
        train(spec, lambda text: None)
    assert {path.parent.name for path in (tmp_path / "run").glob("resume-*/*/complete.json")} == {
        "checkpoint-2",
        "checkpoint-4",
    }


def test_a_data_set_without_anything_to_learn_is_refused(tiny_model, tmp_path):
    spec = training_spec(tmp_path / "run", tiny_model, rows_to_validate_on(), recipe())
    with pytest.raises(LabError, match=r"run-data\.parquet: none of 0 rows to train on has an answer to learn"):
        train(spec, lambda text: None)


def test_rows_longer_than_a_pack_are_counted(tiny_model, tmp_path):
    said: list[str] = []
    rows = [*twelve_rows(), training_row("All?", "word " * 200)]
    report = train(training_spec(tmp_path / "run", tiny_model, rows, recipe(epochs=1, pack_tokens=128)), said.append)
    assert report and (report.rows, report.rows_cut, report.rows_unlearnable) == (13, 1, 0)
    assert any(
        "of 13 training rows, 1 are longer than pack_tokens (128) and were cut, 0 have no answer" in text for text in said
    )


def test_a_full_disk_while_an_adapter_is_saved_is_told_and_a_later_call_goes_on(tiny_model, tmp_path, monkeypatch):
    rows = [*twelve_rows(), *rows_to_validate_on()]
    whole, full = (training_spec(tmp_path / name, tiny_model, rows, recipe(save_every_steps=2)) for name in ("whole", "full"))
    assert train(whole, lambda text: None)

    def no_room(model: Any, folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))

    with monkeypatch.context() as patch:
        patch.setattr(callbacks, "save_adapter", no_room)
        with pytest.raises(OSError) as caught:
            train(full, lambda text: None)
    assert "the disk is full" in str(as_lab_error(caught.value))
    saved = list((tmp_path / "full").glob("resume-*/*/complete.json"))
    assert saved and train(full, lambda text: None)
    files = [tmp_path / name / "adapter" / "adapter_model.safetensors" for name in ("whole", "full")]
    assert files[0].read_bytes() == files[1].read_bytes()
