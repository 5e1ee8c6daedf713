"""Processes and their parents: no orphans, and a way to know that a process is gone for good."""

from __future__ import annotations

import ctypes
import signal

import psutil

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask Linux to send this process SIGTERM when its parent dies, so that a killed run leaves nothing running."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def this_process() -> str:
    """A name of this process that no later one will have: pid and start time."""
    me = psutil.Process()
    return f"{me.pid}@{me.create_time():.2f}"


def is_alive(name: str) -> bool:
    """Whether the process that `this_process` named so still runs."""
    pid, _, started = name.partition("@")
    try:
        process = psutil.Process(int(pid))
        return f"{process.create_time():.2f}" == started and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
