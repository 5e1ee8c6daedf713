"""Run the Dagster UI with its daemon, and the pages beside it, until a signal ends them all."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from filelock import FileLock, Timeout

from lab_pipeline.config.settings import PagesSettings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import PROJECT, Home
from lab_pipeline.core.processes import die_with_parent, python_module
from lab_pipeline.core.progress import Say
from lab_pipeline.core.storage import read_json, write_json
from lab_pipeline.pages.access import Access
from lab_pipeline.pages.server import address_of, listen

_HOST = "127.0.0.1"
_POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 8
"""Time for the children to end by themselves before they are killed. Runs are no children, and save their work meanwhile."""


def serve_ui(home: Home, settings: PagesSettings, port: int, pages_port: int, say: Say) -> None:
    """Serve the UI and the pages of a home until SIGINT, SIGTERM or SIGHUP; then end all processes started here.

    Under `nohup`, which ignores SIGHUP, they outlive the terminal. SIGINT counts even if it was ignored at the start, as a
    script's shell ignores it for what it starts in the background.

    Raises:
        LabError: a port is in use, the home has a UI already, the settings do not allow the pages to start, or the UI or the
            pages ended by themselves.
    """
    Access.of(settings, _HOST)  # says what is wrong before the UI hides it among its messages
    with _only_one(home, address_of(_HOST, port)):
        listen(_HOST, port, "--port").close()
        listen(_HOST, pages_port, "--pages-port").close()
        received = _caught_signals()
        dagster = ("dev", "-w", "workspace.yaml", "-h", _HOST, "-p", str(port))
        pages = ("pages", "--home", str(home.root), "--port", str(pages_port))
        children = {"the UI": _start("dagster", *dagster), "the pages": _start("lab_pipeline.cli.app", *pages)}
        try:
            say(f"home:  {home.root}")
            say(f"UI:    {address_of(_HOST, port)}")
            say(f"pages: {settings.url or address_of(_HOST, pages_port)}")
            while not received:
                for name, child in children.items():
                    if child.poll() is not None:
                        raise LabError(f"{name} ended by itself with exit code {child.returncode}; its messages are above")
                time.sleep(_POLL_SECONDS)
        finally:
            _end(list(children.values()))


@contextmanager
def _only_one(home: Home, address: str) -> Iterator[None]:
    """Let one process at a time serve the UI of a home, and record where, for the message that refuses a second one."""
    record = home.root / "ui.json"
    try:
        with FileLock(home.root / "ui.lock", timeout=0):
            write_json(record, {"address": address})
            yield
    except Timeout:
        raise LabError(
            f"{home.root}: its UI runs already, at {read_json(record)['address']}; open that, or end it first"
        ) from None


def _caught_signals() -> list[int]:
    """Return a list to which each signal that asks for the end is added, once one comes."""
    received: list[int] = []
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if each != signal.SIGHUP or signal.getsignal(each) != signal.SIG_IGN:
            signal.signal(each, lambda number, _: received.append(number))
    return received


def _start(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a module in a session of its own, so that Ctrl-C reaches it through this process only."""
    return subprocess.Popen(
        python_module(module, *arguments),
        cwd=PROJECT,
        env={**os.environ, "PYTHONSAFEPATH": "1"},  # like -P, for the processes that Dagster starts
        stdout=subprocess.DEVNULL if module == "lab_pipeline.cli.app" else None,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )


def _end(children: list[subprocess.Popen[bytes]]) -> None:
    for child in children:
        child.terminate()
    deadline = time.monotonic() + _PATIENCE_SECONDS
    for child in children:
        with suppress(subprocess.TimeoutExpired):
            child.wait(max(0, deadline - time.monotonic()))
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # whatever is left, such as a code server that still waits for its daemon
        child.wait()
