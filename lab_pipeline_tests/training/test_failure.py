import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import dagster as dg
import psutil
import pytest

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.processes import python_module
from lab_pipeline.core.storage import write_text
from lab_pipeline.defs.checkpoints.assets import run_trainer
from lab_pipeline.defs.notifications import failure_reason
from lab_pipeline.defs.resources import errors_as_failures
from lab_pipeline.training.checkpoint import load_checkpoint
from lab_pipeline.training.failure import INTERRUPTED, failure_file, record_failure, training_failure
from lab_pipeline_tests.training.runs import forgetful_model, recipe, training_row, training_spec, twelve_rows

REWRITES = "row Q?|One.: the chat template rewrites earlier turns: an answer does not follow its prompt"


def step_failure(spec: Path) -> str:
    """What a step that trains from this spec says when it fails."""

    @dg.asset
    def phase(context: dg.AssetExecutionContext, trainer: dg.PipesSubprocessClient) -> None:
        with errors_as_failures():
            run_trainer(context, trainer, spec)

    client = dg.PipesSubprocessClient(forward_termination=True)
    result = dg.materialize([phase], resources={"trainer": client}, raise_on_error=False)
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    return failure_reason(failure)


def test_what_the_trainer_can_name_is_the_steps_message(tiny_model: Path, tmp_path: Path) -> None:
    model = forgetful_model(tiny_model, tmp_path / "model")
    training_spec(tmp_path / "run", model, [training_row("Q?", "One.")], recipe())
    assert step_failure(tmp_path / "run" / "spec.json") == REWRITES
    by_hand = subprocess.run(
        python_module("lab_pipeline.training", str(tmp_path / "run" / "spec.json")), capture_output=True, text=True
    )
    assert (by_hand.returncode, by_hand.stderr.splitlines()[-1]) == (1, f"error: {REWRITES}")
    assert "Traceback" not in by_hand.stderr


def test_any_other_error_is_told_by_type_and_message_with_the_place_of_its_traceback(tiny_model: Path, tmp_path: Path) -> None:
    spec = training_spec(tmp_path / "run", tiny_model, twelve_rows(), recipe())
    Path(spec.dataset).write_bytes(b"no Parquet file")
    reason, file = step_failure(tmp_path / "run" / "spec.json"), failure_file(tmp_path / "run")
    assert reason.startswith("ArrowInvalid: ") and reason.endswith(f" (traceback: {file})")
    first, _, rest = file.read_text().partition("\n")
    assert first == reason and "Traceback (most recent call last)" in rest


def test_a_killed_trainer_is_told_with_what_to_try(tiny_model: Path, tmp_path: Path) -> None:
    training_spec(tmp_path / "run", tiny_model, twelve_rows(), recipe(epochs=500, save_every_steps=1))
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 120
        while not killed and time.monotonic() < deadline:
            time.sleep(0.1)
            if list((tmp_path / "run").glob("resume-*/checkpoint-*")):
                killed.extend(child_of(os.getpid(), str(tmp_path / "run" / "spec.json")))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    reason = step_failure(tmp_path / "run" / "spec.json")
    killer.join()
    assert "killed (SIGKILL), most likely by the system because memory ran out" in reason
    assert "fewer pack_tokens" in reason and "the step's stderr" in reason and "\n" not in reason
    assert load_checkpoint(tmp_path / "run") is None


def child_of(parent: int, argument: str) -> list[int]:
    return [child.pid for child in psutil.Process(parent).children(recursive=True) if argument in child.cmdline()]


@pytest.mark.parametrize(
    ("exit_code", "said"),
    [
        (-signal.SIGSEGV, "ended by SIGSEGV; its output is in the step's stderr"),
        (INTERRUPTED, "was interrupted and saved its state: run again"),
        (3, "ended with code 3 and gave no reason; its output is in the step's stderr"),
    ],
)
def test_an_end_without_words_is_told_by_its_code(tmp_path: Path, exit_code: int, said: str) -> None:
    assert said in str(training_failure(tmp_path, exit_code))


def test_a_reason_is_one_line_and_the_trainers_own_goes_before_its_code(tmp_path: Path) -> None:
    assert record_failure(tmp_path, LabError("first\n  second")) == "first second"
    record_failure(tmp_path, LabError("of a process that lost the first"))
    assert str(training_failure(tmp_path, -signal.SIGKILL)) == "first second"
    write_text(failure_file(tmp_path), "another\n\nTraceback")
    assert str(training_failure(tmp_path, 1)) == "another"
