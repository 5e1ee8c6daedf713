"""Train one phase: `python -m lab_pipeline.training CHECKPOINT/spec.json`, by hand or as a child process of Dagster Pipes.

With several GPUs, `LAB_GPUS` of them are used (default: all), each by a process of its own, as
`torchrun --nproc-per-node 8 -m lab_pipeline.training CHECKPOINT/spec.json` does by hand; without a GPU, it is the CPU with
OMP_NUM_THREADS threads. The same command resumes from the last saved step, with any number of processes. On SIGINT or SIGTERM,
the state is saved and the exit code is 75. On any failure, the exit code is 1; the reason is printed in one line, and stored
with its traceback in the folder's `failure.txt`.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from pathlib import Path

from dagster_pipes import open_dagster_pipes
from filelock import FileLock, Timeout

from lab_pipeline.config.recipe import Recipe
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.processes import die_with_parent
from lab_pipeline.training.checkpoint import finish_checkpoint, read_spec
from lab_pipeline.training.failure import FAILED, INTERRUPTED, LONGEST_STEP_SECONDS, failure_file, record_failure
from lab_pipeline.training.team import join, processes_wanted, start


def main(path: str) -> int:
    """Train as the spec at `path` says, mark the checkpoint as complete, and return the exit code: 0, 75 or 1."""
    spec = read_spec(Path(path))
    received: list[int] = []

    def interrupted() -> bool:
        return bool(received)

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda number, _: received.append(number))
    die_with_parent()
    failure_file(Path(spec.output)).unlink(missing_ok=True)  # of an earlier try
    try:
        if (processes := processes_wanted(Recipe.model_validate(spec.recipe).packs_per_step)) > 1:
            return start(processes, path)
        from lab_pipeline.training.train import train

        team = join()
        if not team.leads:
            return INTERRUPTED if train(spec, lambda text: None, interrupted, team) is None else 0
        with FileLock(Path(spec.output) / "lock", timeout=LONGEST_STEP_SECONDS), open_dagster_pipes() as pipes:
            say = pipes.log.info if "DAGSTER_PIPES_CONTEXT" in os.environ else partial(print, flush=True)
            if train(spec, say, interrupted, team) is None:
                return INTERRUPTED
            finish_checkpoint(spec)
            return 0
    except Timeout:
        failure: Exception = LabError(f"{spec.output}: another process is training this checkpoint; wait for it to end")
    except Exception as error:
        failure = error
    print(f"error: {record_failure(Path(spec.output), failure)}", file=sys.stderr)
    return FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
