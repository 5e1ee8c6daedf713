"""Pass the reason why a training process failed to the step that waits for it, by a file in the checkpoint folder."""

from __future__ import annotations

import signal
import traceback
from pathlib import Path

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.machine import as_lab_error, full_disk
from lab_pipeline.core.storage import write_text

FAILED, INTERRUPTED = 1, 75

_OUTPUT = "its output is in the step's stderr in the UI, and in the run's log"
_KILLED = (
    "the training process was killed (SIGKILL), most likely by the system because memory ran out: end other programs, give "
    "the machine or pod more memory, or use a recipe with fewer pack_tokens or with gradient_checkpointing: true; the next "
    "run continues from the last saved step"
)


def failure_file(folder: Path) -> Path:
    """Return the file with the reason in its first line and the traceback below; it exists only if the last training failed."""
    return folder / "failure.txt"


def record_failure(folder: Path, error: Exception) -> str:
    """Store in a checkpoint folder why its training failed, and return the reason in one line."""
    known = as_lab_error(error)
    reason = " ".join(str(known or f"{type(error).__name__}: {error}").split())
    if known is None:
        reason += f" (traceback: {failure_file(folder)})"
    write_text(failure_file(folder), f"{reason}\n\n{''.join(traceback.format_exception(error))}")
    return reason


def training_failure(folder: Path, exit_code: int) -> LabError:
    """Return the error of a failed training process: the reason that it stored, else a guess from its exit code."""
    if failure_file(folder).exists():
        return LabError(failure_file(folder).read_text(encoding="utf-8").split("\n")[0])
    if full := full_disk(folder):  # then it could not store its reason
        return full
    if exit_code == INTERRUPTED:
        return LabError("the training process was interrupted and saved its state: run again to continue from there")
    if exit_code == -signal.SIGKILL:
        return LabError(f"{_KILLED}; {_OUTPUT}")
    if exit_code < 0:
        return LabError(f"the training process was ended by {signal.Signals(-exit_code).name}; {_OUTPUT}")
    return LabError(f"the training process ended with code {exit_code} and gave no reason; {_OUTPUT}")
