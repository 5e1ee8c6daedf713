"""Start child processes that end with their parent, and give processes names that are never used again."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def python_module(name: str, *arguments: str) -> list[str]:
    """Build the command that runs a module in a separate Python process.

    `-P` keeps the working directory off the module search path: a folder `datasets` or a file `yaml.py` there would otherwise
    be imported instead of the library of that name.
    """
    return [sys.executable, "-P", "-m", name, *arguments]


def die_with_parent() -> None:
    """Have Linux send this process SIGTERM when its parent dies, so that a killed run leaves nothing running.

    Linux counts the *thread* that started this process as its parent, so that thread must live as long as the parent process.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def name_of(pid: int) -> str | None:
    """Return a name that no other process ever has; None if there is no process `pid`, or it has ended (zombie).

    It holds the pid, the process's start in clock ticks since boot, and the boot's id; no time of day, as the clock may jump.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *rest = stat.rpartition(")")[2].split()  # proc(5): the program's name, in parentheses, may hold anything
    return None if state in "ZX" else f"{pid}@{rest[18]}.{_BOOT.read_text()[:8]}"


def this_process() -> str:
    name = name_of(os.getpid())
    assert name
    return name


def is_alive(name: str) -> bool:
    """Tell whether the process with this name (see `name_of`) still runs."""
    pid = name.partition("@")[0]
    return pid.isdigit() and name_of(int(pid)) == name


def interrupt(name: str) -> bool:
    """Send SIGINT to the process with this name (see `name_of`); return False if it no longer runs, else True."""
    if not is_alive(name):
        return False
    os.kill(int(name.partition("@")[0]), signal.SIGINT)
    return True
