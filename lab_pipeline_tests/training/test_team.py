from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lab_pipeline.core.errors import LabError
from lab_pipeline.training.checkpoint import load_checkpoint
from lab_pipeline.training.failure import INTERRUPTED
from lab_pipeline.training.team import join, processes_wanted
from lab_pipeline.training.train import TrainingSpec, train
from lab_pipeline_tests.training.runs import asked_at, recipe, rows_to_validate_on, training_spec, twelve_rows

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "lab_pipeline.training"]
ON_TWO_GPUS = [
    "-c",
    "import sys, torch; torch.cuda.device_count = lambda: 2\n"
    "from lab_pipeline.training.__main__ import main; sys.exit(main(sys.argv[1]))",
]


def started(command: list[str], spec: TrainingSpec) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command, str(Path(spec.output) / "spec.json")],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def two_packs_a_step(folder: Path, model: Path, epochs: int = 2) -> TrainingSpec:
    """Three packs an epoch: in every second step, one of two processes has nothing to compute."""
    wanted = recipe(epochs=epochs, packs_per_step=2, save_every_steps=2, lora={"rank": 4, "alpha": 8, "dropout": 0.1})
    return training_spec(folder, model, [*twelve_rows(), *rows_to_validate_on()], wanted)


def assert_same_adapter(one: Path, other: Path) -> None:
    first, second = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    assert max((first[name] - second[name]).abs().max() for name in first) < 1e-6


def test_two_processes_train_as_one_does_and_only_the_first_reports_and_writes(tiny_model: Path, tmp_path: Path) -> None:
    one, two = (two_packs_a_step(tmp_path / name, tiny_model) for name in ("one", "two"))
    several = started(ON_TWO_GPUS, two)
    alone = train(one, lambda text: None)
    said, complained = several.communicate(timeout=300)
    assert several.returncode == 0, complained
    assert_same_adapter(tmp_path / "one", tmp_path / "two")
    finished = load_checkpoint(tmp_path / "two")
    assert alone and finished and (alone.processes, finished.report.processes) == (1, 2)
    assert [point["loss"] for point in finished.report.curve] == pytest.approx(
        [point["loss"] for point in alone.curve], abs=1e-4
    )
    assert finished.report.tokens == alone.tokens and finished.report.steps == 4  # no pack was repeated
    assert finished.report.chosen["epoch"] == alone.chosen["epoch"]
    assert said.count("12 rows in 3 packs") == said.count("was taken") == 1


@pytest.mark.long
def test_a_training_goes_on_with_another_number_of_processes(tiny_model: Path, tmp_path: Path) -> None:
    whole, fewer, more = (two_packs_a_step(tmp_path / name, tiny_model, epochs=30) for name in ("whole", "fewer", "more"))
    assert train(whole, lambda text: None)
    several = started(TORCHRUN, fewer)
    deadline = time.monotonic() + 300
    while not list((tmp_path / "fewer").glob("resume-*/checkpoint-*/complete.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    several.send_signal(signal.SIGTERM)
    several.communicate(timeout=120)
    assert several.returncode and load_checkpoint(tmp_path / "fewer") is None
    assert train(fewer, lambda text: None)
    assert train(more, lambda text: None, asked_at(7)) is None
    several = started(TORCHRUN, more)
    assert several.wait(timeout=300) == 0
    for name in ("fewer", "more"):
        assert_same_adapter(tmp_path / "whole", tmp_path / name)


@pytest.mark.long
def test_the_reason_of_a_failed_process_and_an_interruption_are_told_by_the_exit_code(tiny_model: Path, tmp_path: Path) -> None:
    failing, long = (two_packs_a_step(tmp_path / name, tiny_model, epochs=900) for name in ("failing", "long"))
    Path(failing.dataset).unlink()
    assert started(ON_TWO_GPUS, failing).wait(timeout=300) == 1
    assert "failing-data.parquet" in (tmp_path / "failing" / "failure.txt").read_text()
    several = started(ON_TWO_GPUS, long)
    while not list((tmp_path / "long").glob("resume-*/checkpoint-*/complete.json")):
        time.sleep(0.02)
    several.send_signal(signal.SIGTERM)
    assert several.wait(timeout=120) == INTERRUPTED


@pytest.mark.parametrize(
    ("visible", "wanted", "packs_per_step", "processes"),
    [(0, None, 4, 1), (0, "1", 4, 1), (1, None, 4, 1), (8, None, 16, 8), (8, "", 16, 8), (8, "2", 16, 2), (8, None, 3, 3)],
)
def test_there_is_a_process_for_each_gpu_but_not_more_than_packs(monkeypatch, visible, wanted, packs_per_step, processes):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if wanted is not None:
        monkeypatch.setenv("LAB_GPUS", wanted)
    assert processes_wanted(packs_per_step) == processes


@pytest.mark.parametrize("wanted", ["0", "9", "all", "-1"])
def test_a_wrong_number_of_gpus_is_refused(monkeypatch, wanted):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setenv("LAB_GPUS", wanted)
    with pytest.raises(LabError, match=f"LAB_GPUS: expected a number from 1 to that of the visible GPUs, 8, found '{wanted}'"):
        processes_wanted(16)


@pytest.mark.parametrize(("visible", "seen"), [(None, "0"), ("", ""), ("3", "3"), ("5,6", "5")])
def test_a_process_of_its_own_sees_the_first_visible_gpu_only(monkeypatch, visible, seen):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert join().leads
    assert os.environ["CUDA_VISIBLE_DEVICES"] == seen
