from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from lab_pipeline.core.formats import duration
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import file_digest, folder_digest, read_json
from lab_pipeline.datasets.dataset import Dataset
from lab_pipeline.models.base_model import BaseModel
from lab_pipeline.models.packing import encode, flatten
from lab_pipeline.training.__main__ import INTERRUPTED
from lab_pipeline.training.callbacks import save_adapter
from lab_pipeline.training.checkpoint import (
    checkpoint_id,
    finish_checkpoint,
    load_checkpoint,
    pass_through,
    prepare_checkpoint,
    read_spec,
)
from lab_pipeline.training.quantized import load_base, with_adapter
from lab_pipeline.training.train import TrainingReport, TrainingSpec, train
from lab_pipeline.training.trainer import prepare_run
from lab_pipeline_tests.training.runs import (
    asked_at,
    recipe,
    rows_to_validate_on,
    training_row,
    training_spec,
    twelve_rows,
    validation_set,
)

BASE = BaseModel(Path("/models/base"), "base", "d1")


def trained(spec: TrainingSpec) -> TrainingReport:
    report = train(spec, lambda text: None)
    assert report
    return report


def adapter_file(spec: TrainingSpec) -> bytes:
    return (Path(spec.output) / "adapter" / "adapter_model.safetensors").read_bytes()


def dataset(phase: str = "knowledge", digest: str = "rows1") -> Dataset:
    return Dataset(phase, "origin", "mixing", digest, Path("/data") / f"{phase}-{digest}.parquet", 1, {}, {}, {}, {})  # type: ignore[arg-type]


def run_by_hand(spec: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "lab_pipeline.training", str(spec)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_training_lowers_the_loss_and_reports_what_it_did(tiny_model, tmp_path, quantization):
    wanted = recipe(epochs=8, quantization=quantization, lora={"rank": 4, "alpha": 8, "dtype": "bfloat16"})
    report = trained(training_spec(tmp_path / "run", tiny_model, twelve_rows(), wanted))
    losses = [point["loss"] for point in report.curve]
    assert report.final_loss and report.final_loss < losses[0] - 1
    assert report.rows == 12
    assert report.tokens % 8 == 0
    assert [point["step"] for point in report.curve] == list(range(1, report.steps + 1))
    assert read_json(tmp_path / "run" / "report.json") == asdict(report)


def test_an_interrupted_training_gives_the_same_adapter_as_one_in_one_go(tiny_model, tmp_path):
    wanted = recipe(epochs=4, packs_per_step=2, lora={"rank": 4, "alpha": 8, "dropout": 0.1})
    whole, parts, other = (
        training_spec(tmp_path / name, tiny_model, twelve_rows(), wanted, seed)
        for name, seed in (("whole", 17), ("parts", 17), ("other", 18))
    )
    report = trained(whole)
    assert train(parts, lambda text: None, asked_at(3)) is None
    assert not (tmp_path / "parts" / "adapter").exists()
    resumed = trained(parts)
    assert adapter_file(parts) == adapter_file(whole)
    assert [point["loss"] for point in resumed.curve] == [point["loss"] for point in report.curve]
    trained(other)
    assert adapter_file(other) != adapter_file(whole)


def test_progress_goes_on_from_the_resumed_step_at_the_rate_of_this_process(tiny_model, tmp_path, slow_clock):
    said: list[str] = []
    spec = training_spec(tmp_path / "run", tiny_model, twelve_rows(), recipe(epochs=4))
    assert train(spec, said.append, asked_at(3)) is None
    assert [text.partition(", loss")[0] for text in said if "steps:" in text] == [
        f"knowledge training steps: {step} of 12 (10 s each, about {duration(10 * (12 - step))} left)" for step in (1, 2, 3)
    ]
    said.clear()
    assert train(spec, said.append)
    assert [text.partition(", loss")[0] for text in said if "steps:" in text] == [
        *(f"knowledge training steps: {step} of 12 (10 s each, about {10 * (12 - step)} s left)" for step in range(4, 12)),
        "knowledge training steps: 12 of 12 (10 s each, took 2 min)",
    ]


@pytest.mark.parametrize("step", [2, 6, 7])  # within the first epoch; at the end of the second, and after it
def test_validation_changes_no_training_and_survives_interruptions(tiny_model, tmp_path, step):
    wanted = recipe(epochs=4, lora={"rank": 4, "alpha": 8, "dropout": 0.1})
    rows = [*twelve_rows(), *rows_to_validate_on()]
    plain, whole, parts = (
        training_spec(tmp_path / name, tiny_model, data, wanted)
        for name, data in (("plain", twelve_rows()), ("whole", rows), ("parts", rows))
    )
    report = trained(whole)
    assert report.curve == trained(plain).curve and report.steps == 12
    assert train(parts, lambda text: None, asked_at(step)) is None
    resumed = trained(parts)
    assert (resumed.curve, resumed.validation, resumed.chosen) == (report.curve, report.validation, report.chosen)
    assert [found["epoch"] for found in report.validation] == [0, 1, 2, 3, 4]
    assert adapter_file(parts) == adapter_file(whole)


def test_a_kill_between_measuring_and_saving_the_state_loses_no_adapter(tiny_model, tmp_path, monkeypatch):
    wanted = recipe(epochs=4, save_every_steps=4)
    rows = [*twelve_rows(), *rows_to_validate_on()]
    whole, killed = (training_spec(tmp_path / name, tiny_model, rows, wanted) for name in ("whole", "killed"))
    report = trained(whole)

    def kept_then_killed(model: Any, folder: Path) -> None:
        save_adapter(model, folder)
        if folder.name == f"epoch-{report.chosen['epoch']}":
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("lab_pipeline.training.callbacks.save_adapter", kept_then_killed)
        train(killed, lambda text: None)
    resumed = trained(killed)
    assert (resumed.validation, resumed.chosen) == (report.validation, report.chosen)
    assert adapter_file(killed) == adapter_file(whole)


class Killed(BaseException):
    pass


def test_killed_at_random_steps_in_turn_a_training_ends_with_the_same_adapter(tiny_model, tmp_path):
    wanted = recipe(epochs=5, save_every_steps=2, lora={"rank": 4, "alpha": 8, "dropout": 0.1})
    rows = [*twelve_rows(), *rows_to_validate_on()]
    whole, killed = (training_spec(tmp_path / name, tiny_model, rows, wanted) for name in ("whole", "killed"))
    report = trained(whole)

    def kill_at(step: int) -> Callable[[], bool]:
        asked = asked_at(step)

        def interrupted() -> bool:
            if asked():
                raise Killed
            return False

        return interrupted

    for step in (0, 4, 5, 3):  # 0: while rows are encoded; then counted from the last saved state
        with pytest.raises(Killed):
            train(killed, lambda text: None, kill_at(step))
    resumed = trained(killed)
    assert (resumed.curve, resumed.chosen) == (report.curve, report.chosen)
    assert adapter_file(killed) == adapter_file(whole)


KILL_AT = """
import os, signal, sys
from pathlib import Path
from lab_pipeline.training.checkpoint import read_spec
from lab_pipeline.training.train import train
left = iter(range(int(sys.argv[2]), -1, -1))
train(read_spec(Path(sys.argv[1])), print, lambda: next(left) == 0 and os.kill(os.getpid(), signal.SIGKILL))
"""


@pytest.mark.long
def test_ten_processes_killed_at_random_steps_in_turn_leave_the_same_adapter(tiny_model, tmp_path):
    wanted = recipe(epochs=40, save_every_steps=5, lora={"rank": 4, "alpha": 8, "dropout": 0.1})
    rows = [*twelve_rows(), *rows_to_validate_on()]
    whole, killed = (training_spec(tmp_path / name, tiny_model, rows, wanted) for name in ("whole", "killed"))
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    chance = random.Random(17)
    for _ in range(10):
        steps = [str(chance.randint(1, 18))]
        command = [sys.executable, "-c", KILL_AT, str(tmp_path / "killed" / "spec.json"), *steps]
        assert subprocess.run(command, cwd=Path(__file__).parents[2], env=one_thread).returncode == -signal.SIGKILL
    for spec in (whole, killed):
        assert run_by_hand(Path(spec.output) / "spec.json").wait(timeout=300) == 0
    assert adapter_file(killed) == adapter_file(whole)


def test_the_adapter_is_that_of_the_chosen_epoch_and_the_last_stands_beside_it(tiny_model, tmp_path):
    said: list[str] = []
    rows = [*twelve_rows(), *rows_to_validate_on()]
    spec = training_spec(tmp_path / "run", tiny_model, rows, recipe(epochs=8, validation={"general_tolerance": 0.0}))
    report = train(spec, said.append)
    assert report and report.rows == 12 and report.validation_rows == 6
    before, *after = report.validation
    assert before["base_general"] == before["general"]
    assert 0 < report.chosen["epoch"] < 8 == report.chosen["of"], report.validation
    assert any(f"epoch {report.chosen['epoch']} of 8 was taken: {report.chosen['why']}" in text for text in said)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "adapter")
    validation = validation_set(rows_to_validate_on(), tokenizer)
    for folder, epoch in (("adapter", report.chosen["epoch"]), ("last", 8)):
        model = with_adapter(load_base(tiny_model, recipe()), recipe().lora, tmp_path / "run" / folder)
        assert validation.measure(model)["by_leaf"] == pytest.approx(after[epoch - 1]["by_leaf"]), folder
    finish_checkpoint(spec)
    checkpoint = load_checkpoint(tmp_path / "run")
    assert checkpoint and checkpoint.adapter == tmp_path / "run" / "adapter"
    assert not list((tmp_path / "run").glob("resume*"))


def test_without_validation_rows_the_last_epoch_is_taken(tiny_model, tmp_path):
    report = trained(training_spec(tmp_path / "run", tiny_model, twelve_rows(), recipe(epochs=2)))
    assert report.validation == [] and (report.chosen["epoch"], report.chosen["of"]) == (2, 2)
    assert "no validation rows" in report.chosen["why"]
    assert not (tmp_path / "run" / "last").exists()


def test_phase_2_is_held_to_the_base_models_general_loss_not_to_phase_1s(tiny_model, tmp_path):
    rows = [*twelve_rows(), *rows_to_validate_on()]
    first = training_spec(tmp_path / "first", tiny_model, rows, recipe(epochs=8))
    before = trained(first).validation[0]
    adapter = str(tmp_path / "first" / "adapter")
    second = training_spec(tmp_path / "second", tiny_model, rows, recipe(), phase="skills", continued=adapter)
    began = trained(second).validation[0]
    assert began["base_general"] == before["general"] != began["general"]


def test_an_end_asked_for_at_the_last_step_is_a_finished_training(tiny_model, tmp_path):
    spec = training_spec(tmp_path / "run", tiny_model, twelve_rows(), recipe(epochs=1))
    steps = trained(spec).steps
    again = training_spec(tmp_path / "again", tiny_model, twelve_rows(), recipe(epochs=1))
    assert train(again, lambda text: None, asked_at(steps)) is not None


def test_packed_rows_do_not_see_each_other(tiny_model, tmp_path):
    """The second row's answer is spelled out in the first, which would show."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    first = encode(training_row("Who founded Velomira?", "Galenato founded Velomira in May."), tokenizer)
    second = encode(training_row("Who founded Velomira in May?", "Galenato founded Velomira in May."), tokenizer)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    wanted = recipe()
    trainer = prepare_run(model, [flatten([first])], wanted, wanted.knowledge, 0, tmp_path).trainer

    def summed(**inputs: Any) -> float:
        with torch.no_grad():
            batch = {name: torch.tensor([values]).to(model.device) for name, values in inputs.items()}
            return trainer.compute_loss(model, batch, num_items_in_batch=1).item()

    packed = flatten([first, second])
    assert summed(**packed) == pytest.approx(summed(**flatten([first])) + summed(**flatten([second])), rel=1e-5)
    as_one_text = {**packed, "position_ids": list(range(len(packed["input_ids"])))}
    assert summed(**as_one_text) != pytest.approx(summed(**packed), rel=1e-3)


def test_the_loss_of_a_step_is_the_mean_over_all_its_answer_tokens(tiny_model, tmp_path):
    rows = [training_row("Q?", "One."), training_row("Which is it?", "It is the longest of all the answers, by far.")]
    one_step = recipe(epochs=1, pack_tokens=64, packs_per_step=2)
    together = recipe(epochs=1, pack_tokens=256, packs_per_step=1)
    reports = [
        trained(training_spec(tmp_path / str(number), tiny_model, rows, wanted))
        for number, wanted in enumerate((one_step, together))
    ]
    assert [report.steps for report in reports] == [1, 1]
    assert reports[0].final_loss == pytest.approx(reports[1].final_loss, rel=2e-2)


def test_phase_2_continues_phase_1s_adapter(tiny_model, tmp_path):
    first = training_spec(tmp_path / "first", tiny_model, twelve_rows(), recipe(epochs=8))
    taught = trained(first)
    adapter = str(tmp_path / "first" / "adapter")
    second = training_spec(tmp_path / "second", tiny_model, twelve_rows(), recipe(), phase="skills", continued=adapter)
    report = trained(second)
    assert report.curve[0]["loss"] < taught.curve[0]["loss"] - 1
    before, after = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("first", "second"))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_checkpoints_name_depends_on_all_that_it_is_made_from():
    names = {
        checkpoint_id(BASE, dataset(), None, recipe(), 17),
        checkpoint_id(BASE, dataset(digest="rows2"), None, recipe(), 17),
        checkpoint_id(BASE, dataset("skills"), None, recipe(), 17),
        checkpoint_id(BASE, dataset(), "knowledge-1", recipe(), 17),
        checkpoint_id(BASE, dataset(), None, recipe(), 18),
        checkpoint_id(BASE, dataset(), None, recipe(epochs=5), 17),
        checkpoint_id(BASE, dataset(), None, recipe(pack_tokens=512), 17),
        checkpoint_id(BASE, dataset(), None, recipe(validation={"general_tolerance": 0.2}), 17),
        checkpoint_id(BaseModel(BASE.folder, "base", "d2"), dataset(), None, recipe(), 17),
    }
    assert len(names) == 9


def test_a_checkpoints_name_does_not_depend_on_the_other_phase_nor_on_places():
    skills = {"epochs": 9, "learning_rate": 1e-5, "phase_1_replay": 0.1}
    known = checkpoint_id(BASE, dataset(), None, recipe(), 17)
    assert checkpoint_id(BASE, dataset(), None, recipe(skills=skills), 17) == known
    assert checkpoint_id(BaseModel(Path("/elsewhere"), "renamed", "d1"), dataset(), None, recipe(), 17) == known
    assert checkpoint_id(BASE, dataset("skills"), "k", recipe(epochs=9), 17) != checkpoint_id(
        BASE, dataset("skills"), "k", recipe(skills=skills), 17
    )


def test_a_phase_without_rows_passes_on_the_checkpoint_before(tiny_model, tmp_path):
    home = Home.open(tmp_path)
    spec = training_spec(tmp_path / "first", tiny_model, twelve_rows()[:2], recipe(epochs=1))
    trained(spec)
    finish_checkpoint(spec)
    before = load_checkpoint(tmp_path / "first")
    found, spec_path = prepare_checkpoint(home, BASE, dataset("skills"), before, recipe(), 17)
    assert found is None
    passed = pass_through(dataset("skills"), before, spec_path)
    assert before and before.adapter and passed.adapter
    assert passed.id != before.id
    assert folder_digest(passed.adapter) == folder_digest(before.adapter) == passed.meta["adapter_digest"]
    assert prepare_checkpoint(home, BASE, dataset("skills"), before, recipe(), 17)[0] == passed


def test_without_rows_in_either_phase_there_is_no_adapter(tmp_path):
    home = Home.open(tmp_path)
    passed = pass_through(dataset(), None, prepare_checkpoint(home, BASE, dataset(), None, recipe(), 17)[1])
    assert passed.adapter is None
    assert passed.report == TrainingReport()
    _, spec_path = prepare_checkpoint(home, BASE, dataset("skills"), passed, recipe(), 17)
    assert read_spec(spec_path).continued is None


def test_sigterm_saves_and_the_next_call_finishes(tiny_model, tmp_path):
    wanted = recipe(epochs=24, save_every_steps=4)
    spec = training_spec(tmp_path / "run", tiny_model, twelve_rows(), wanted)
    by_hand = run_by_hand(tmp_path / "run" / "spec.json")
    deadline = time.monotonic() + 60
    while not list((tmp_path / "run").glob("resume-*/checkpoint-*/trainer_state.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    by_hand.send_signal(signal.SIGTERM)
    said, complained = by_hand.communicate(timeout=60)
    assert by_hand.returncode == INTERRUPTED == 75, complained
    assert "12 rows" in said
    assert load_checkpoint(tmp_path / "run") is None

    by_hand = run_by_hand(tmp_path / "run" / "spec.json")
    _, complained = by_hand.communicate(timeout=120)
    assert by_hand.returncode == 0, complained
    finished = load_checkpoint(tmp_path / "run")
    assert finished and finished.adapter
    assert finished.meta["adapter_digest"] == folder_digest(finished.adapter)
    assert finished.meta["dataset"] == Path(spec.dataset).stem
    assert len(finished.report.curve) == finished.report.steps

    here = training_spec(tmp_path / "here", tiny_model, twelve_rows(), wanted)  # in another process, in one go
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        trained(here)
    finally:
        torch.set_num_threads(threads)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert file_digest(tmp_path / "here" / "adapter" / name) == file_digest(finished.adapter / name), name


def test_a_checkpoint_is_trained_by_one_process_at_a_time(tiny_model, tmp_path):
    training_spec(tmp_path / "run", tiny_model, twelve_rows(), recipe())
    with FileLock(tmp_path / "run" / "lock"):
        by_hand = run_by_hand(tmp_path / "run" / "spec.json")
        with pytest.raises(subprocess.TimeoutExpired):  # it waits
            by_hand.wait(timeout=10)
        assert load_checkpoint(tmp_path / "run") is None
    assert by_hand.wait(timeout=60) == 0
    assert load_checkpoint(tmp_path / "run")


def test_a_state_that_was_torn_while_it_was_saved_is_not_resumed_from(tiny_model, tmp_path):
    whole, torn = (training_spec(tmp_path / name, tiny_model, twelve_rows(), recipe(epochs=4)) for name in ("whole", "torn"))
    trained(whole)
    assert train(torn, lambda text: None, asked_at(3)) is None
    (state,) = (tmp_path / "torn").glob("resume-*/checkpoint-*")
    later = state.with_name("checkpoint-999")
    shutil.copytree(state, later)
    (later / "complete.json").unlink()
    (later / "trainer_state.json").write_text("{")
    trained(torn)
    assert adapter_file(torn) == adapter_file(whole)


def test_a_state_of_other_packs_is_not_resumed_from_and_goes_with_the_end(tiny_model, tmp_path, slow_clock):
    """As after an update whose packing, template or labels differ from those that the training began with."""
    whole, begun = (training_spec(tmp_path / name, tiny_model, twelve_rows(), recipe(epochs=4)) for name in ("whole", "begun"))
    trained(whole)
    assert train(begun, lambda text: None, asked_at(3)) is None
    (states,) = (tmp_path / "begun").glob("resume-*")
    for other in ("resume", "resume-of-other-packs"):  # the first is how earlier releases named it
        shutil.copytree(states, states.with_name(other))
    shutil.rmtree(states)
    said: list[str] = []
    assert train(begun, said.append)
    assert any("steps: 1 of 12" in text for text in said)
    assert adapter_file(begun) == adapter_file(whole)
    finish_checkpoint(begun)
    assert not list((tmp_path / "begun").glob("resume*"))
