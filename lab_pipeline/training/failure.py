"""Why a training process failed: it leaves its reason in the checkpoint folder, where the step that waits for it finds it."""

from __future__ import annotations

import signal
import traceback
from pathlib import Path

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.machine import as_lab_error, full_disk
from lab_pipeline.core.storage import write_text

FAILED, INTERRUPTED = 1, 75

_OUTPUT = "what it wrote stands in the step's stderr in the UI, and in the run's log"
_KILLED = (
    "the training process was killed (SIGKILL), most likely by the system because memory ran out: end other programs, give "
    "the machine or pod more memory, or take a recipe with fewer pack_tokens or with gradient_checkpointing: true; the next "
    "run goes on from the last saved step"
)


class TrainingFailed(LabError):
    """A training process ended without a checkpoint; the message is its own where it left one."""


def failure_file(folder: Path) -> Path:
    """The file with the reason in its first line and the traceback below; there only if the last training failed."""
    return folder / "failure.txt"


def record_failure(folder: Path, error: Exception) -> str:
    """Write down in a checkpoint folder why its training failed; returns the reason in one line."""
    told = as_lab_error(error)
    reason = " ".join(str(told or f"{type(error).__name__}: {error}").split())
    if told is None:
        reason += f" (traceback: {failure_file(folder)})"
    write_text(failure_file(folder), f"{reason}\n\n{''.join(traceback.format_exception(error))}")
    return reason


def training_failure(folder: Path, exit_code: int) -> TrainingFailed:
    """Tell why the training process of a checkpoint folder failed: by its own words, else by how it ended."""
    if failure_file(folder).exists():
        return TrainingFailed(failure_file(folder).read_text(encoding="utf-8").split("\n")[0])
    if full := full_disk(folder):  # it could not even write down why
        return TrainingFailed(str(full))
    if exit_code == INTERRUPTED:
        return TrainingFailed("the training process was asked to end, and saved its state: run again to go on from there")
    if exit_code == -signal.SIGKILL:
        return TrainingFailed(f"{_KILLED}; {_OUTPUT}")
    if exit_code < 0:
        return TrainingFailed(f"the training process was ended by {signal.Signals(-exit_code).name}; {_OUTPUT}")
    return TrainingFailed(f"the training process ended with code {exit_code} and gave no reason; {_OUTPUT}")
