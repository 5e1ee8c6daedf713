"""The real Dagster daemon on a test's home, with its code server and its runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import dagster as dg
import psutil

PROJECT = Path(__file__).parents[1]
T = TypeVar("T")


@contextmanager
def daemon(log: Path) -> Iterator[psutil.Process]:
    """A daemon for the home that the environment names; the whole tree of processes is killed at the end."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / "dagster-daemon"), "run", "-w", "workspace.yaml"],
            cwd=PROJECT,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
        )
    try:
        yield psutil.Process(process.pid)
    finally:
        kill_tree(process.pid)
        process.wait()


def tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kill_tree(pid: int) -> list[int]:
    """SIGKILL to a process and all below it, as in a power cut; returns whom it hit."""
    hit = []
    for process in tree(pid):
        try:
            process.send_signal(signal.SIGKILL)
            hit.append(process.pid)
        except psutil.NoSuchProcess:
            continue
    return hit


def wait_for(what: str, found: Callable[[], T | None], seconds: float, every: float = 0.5) -> T:
    """The first true value that `found` gives; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := found():
            return value
        time.sleep(every)
    raise AssertionError(f"waited {seconds:.0f} s in vain for {what}")


def finished(instance: dg.DagsterInstance, job: str, number: int) -> list[dg.DagsterRun] | None:
    """The runs of a job, newest first, once there are `number` and none is under way."""
    runs = instance.get_runs(dg.RunsFilter(job_name=job))
    return list(runs) if len(runs) >= number and all(run.is_finished for run in runs) else None


def tick_says(instance: dg.DagsterInstance, name: str) -> str:
    """The last reason to skip, or error, of a sensor or schedule."""
    for state in instance.all_instigator_state():
        if state.name == name:
            ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
            if ticks:
                return ticks[0].skip_reason or (ticks[0].error.message if ticks[0].error else ticks[0].status.value)
    return ""
