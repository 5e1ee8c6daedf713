"""Run one phase: `python -m lab_pipeline.training CHECKPOINT/spec.json`, by hand or as a Dagster Pipes child.

The same folder given again resumes from the last saved step. SIGINT and SIGTERM save and exit with 75 (try again later).
What else ends it is said in one line, and kept with its traceback in the folder's `failure.txt`.
It trains on one GPU, or on the CPU with as many threads as OMP_NUM_THREADS says.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from dagster_pipes import PipesContext, open_dagster_pipes
from filelock import FileLock, Timeout

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.processes import die_with_parent
from lab_pipeline.training.checkpoint import finish_checkpoint, read_spec
from lab_pipeline.training.failure import FAILED, INTERRUPTED, record_failure
from lab_pipeline.training.train import TrainingSpec

_LONGEST_STEP_SECONDS = 120
"""A trainer whose run was killed ends after the step in progress; the next one waits for it."""


def main(path: str) -> int:
    spec = read_spec(Path(path))
    stop = _Stop()
    die_with_parent()
    try:
        with FileLock(Path(spec.output) / "lock", timeout=_LONGEST_STEP_SECONDS), open_dagster_pipes() as pipes:
            from lab_pipeline.training.train import train

            if train(spec, _say(pipes), stop) is None:
                return INTERRUPTED
            finish_checkpoint(spec)
            return 0
    except Timeout:
        return _failed(spec, LabError(f"{spec.output}: another process is training this checkpoint; wait for it to end"))
    except Exception as error:
        return _failed(spec, error)


def _failed(spec: TrainingSpec, error: Exception) -> int:
    print(f"error: {record_failure(Path(spec.output), error)}", file=sys.stderr)
    return FAILED


class _Stop:
    """Whether a signal asked for an end; the run saves its state after the step in progress."""

    def __init__(self) -> None:
        self.asked = False
        for signal_number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signal_number, self._ask)

    def _ask(self, signal_number: int, frame: FrameType | None) -> None:
        self.asked = True

    def __call__(self) -> bool:
        return self.asked


def _say(pipes: PipesContext) -> Callable[[str], None]:
    """To Dagster's event log when a Dagster step waits for us, to the terminal otherwise."""
    if "DAGSTER_PIPES_CONTEXT" in os.environ:
        return pipes.log.info
    return lambda text: print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
