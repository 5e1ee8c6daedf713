"""Tell the pipeline step that waits for a training process why it failed, through a file in the checkpoint folder."""

from __future__ import annotations

import signal
import traceback
from pathlib import Path

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.machine import as_lab_error, full_disk
from lab_pipeline.core.storage import write_text

FAILED, INTERRUPTED = 1, 75

LONGEST_STEP_SECONDS = 120
"""How long a trainer that was told to stop may take to finish its step and save its state. So long waits the run that was
cancelled, and a trainer that is started again meanwhile."""

_OUTPUT = "its output is in the step's stderr in the UI, and in the run's log"
_KILLED = (
    "the training process was killed (SIGKILL), most likely by the system because memory ran out: end other programs, give "
    "the machine or pod more memory, or use a recipe with fewer pack_tokens or with gradient_checkpointing: true; the next "
    "run continues from the last saved step"
)


class Interrupted(Exception):
    """A signal asked a training to end before there was anything to save."""


def failure_file(folder: Path) -> Path:
    """Return the path of the file with the reason of a failed training in its first line, and the traceback below.

    The file exists only if the last training in this checkpoint folder failed and could still store its reason.
    """
    return folder / "failure.txt"


def record_failure(folder: Path, error: Exception) -> str:
    """Store why a training failed, with the traceback, in its folder's `failure_file`; return the reason in one line.

    If the error is a defect of the program, the line also says in which file the traceback is. A reason that is stored already
    stays: of several processes, the first one to fail tells why, and the others fail because it is gone.
    """
    known = as_lab_error(error)
    reason = " ".join(str(known or f"{type(error).__name__}: {error}").split())
    if known is None:
        reason += f" (traceback: {failure_file(folder)})"
    if not failure_file(folder).exists():
        write_text(failure_file(folder), f"{reason}\n\n{''.join(traceback.format_exception(error))}")
    return reason


def training_failure(folder: Path, exit_code: int) -> LabError:
    """Return an error that says why a training process failed.

    The reason is the one that the process stored in its checkpoint folder, else a full disk, else what its exit code suggests
    (negative if a signal ended the process).
    """
    if failure_file(folder).exists():
        return LabError(failure_file(folder).read_text(encoding="utf-8").split("\n")[0])
    if full := full_disk(folder):  # a process cannot store its reason on a full disk
        return full
    if exit_code == INTERRUPTED:
        return LabError("the training process was interrupted and saved its state: run again to continue from there")
    if exit_code in (-signal.SIGKILL, 128 + signal.SIGKILL):  # the latter if one of several processes was killed
        return LabError(f"{_KILLED}; {_OUTPUT}")
    if exit_code < 0:
        return LabError(f"the training process was ended by {signal.Signals(-exit_code).name}; {_OUTPUT}")
    return LabError(f"the training process ended with code {exit_code} and gave no reason; {_OUTPUT}")
