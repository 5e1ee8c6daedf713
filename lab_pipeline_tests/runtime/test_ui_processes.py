"""The processes of `lab-pipeline ui`: what starts, what is refused, and that nothing is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from typer.testing import CliRunner

from lab_pipeline.cli.app import app
from lab_pipeline.config.settings import initial_settings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import PROJECT, Home
from lab_pipeline.pages.links import link
from lab_pipeline.pages.server import listen
from lab_pipeline.runtime.ui import _only_one, serve_ui
from lab_pipeline_tests.builders import FREEFORM, settings_for, write_skill

UI = """
import sys
from pathlib import Path
from lab_pipeline.config.settings import PagesSettings
from lab_pipeline.core.home import Home
from lab_pipeline.runtime import ui

real = ui.python_module
nap = ["sh", "-c", "sleep 600 & exec sleep 600"]  # ends at once, and leaves a process behind
ui.python_module = lambda name, *arguments: nap if name == "dagster" or sys.argv[4] == "nap" else real(name, *arguments)
ui.serve_ui(Home(Path(sys.argv[1])), PagesSettings(), int(sys.argv[2]), int(sys.argv[3]), lambda text: print(text, flush=True))
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home.open(tmp_path / "home")
    home.settings_file.write_text(initial_settings(tmp_path))
    return home


def free_port() -> int:
    with listen("127.0.0.1", 0) as probe:
        return int(probe.getsockname()[1])


def wait(until: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not until() and time.monotonic() < deadline:
        time.sleep(0.1)
    return bool(until())


def gone(processes: list[psutil.Process]) -> bool:
    return not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in processes)


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/static/pages.css").status_code == 200
    except httpx.HTTPError:
        return False


def as_in_the_background() -> None:
    """What a shell does for the commands that a script starts in the background; these tests may run under nohup."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("pages", "end"),
    [("pages", signal.SIGTERM), ("pages", signal.SIGKILL), ("nap", signal.SIGINT), ("nap", signal.SIGHUP)],
)
def test_all_that_the_ui_started_ends_with_it(home, pages, end):
    ui_port, pages_port = free_port(), free_port()
    command = [sys.executable, "-c", UI, str(home.root), str(ui_port), str(pages_port), pages]
    ui = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=as_in_the_background)
    try:
        assert ui.stdout
        said = [ui.stdout.readline() for _ in range(3)]
        assert said[1:] == [f"UI:    http://127.0.0.1:{ui_port}\n", f"pages: http://127.0.0.1:{pages_port}\n"]
        if pages == "pages":
            assert wait(lambda: answers(pages_port))
            assert link(home, settings_for(home.root), "models") == f"http://127.0.0.1:{pages_port}/models"
        process = psutil.Process(ui.pid)
        assert wait(lambda: len(process.children(recursive=True)) == (3 if pages == "pages" else 4))
        started = process.children(recursive=True)
        ui.send_signal(end)
        assert ui.wait(timeout=30) == (-end if end == signal.SIGKILL else 0)
        if end != signal.SIGKILL:
            assert gone(started)
        assert wait(lambda: gone(started[:2])) and not answers(pages_port)
    finally:
        for left in psutil.Process(ui.pid).children(recursive=True) if ui.poll() is None else []:
            left.kill()
        ui.kill()
        ui.wait()


def test_a_port_in_use_is_said_with_the_home_that_uses_it(home):
    listening = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)"
    other = subprocess.Popen(
        [sys.executable, "-c", f"{listening}; time.sleep(600)"],
        env={**os.environ, "LAB_HOME": "/labs/other"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert other.stdout
        port, pages = int(other.stdout.readline()), settings_for(home.root).pages
        taken = rf"port {port} of 127.0.0.1: Address already in use by the home /labs/other; choose another one with "
        with pytest.raises(LabError, match=taken + "--port"):
            serve_ui(home, pages, port, free_port(), print)
        with pytest.raises(LabError, match=taken + "--pages-port"):
            serve_ui(home, pages, free_port(), port, print)
    finally:
        other.kill()
        other.wait()


def test_a_home_has_one_ui_and_a_second_one_is_told_where(home):
    with (
        _only_one(home, "http://127.0.0.1:3210"),
        pytest.raises(LabError, match=f"{home.root}: its UI runs already, at http://127.0.0.1:3210"),
    ):
        serve_ui(home, settings_for(home.root).pages, free_port(), free_port(), print)


@pytest.mark.parametrize("port", ["0", "80000"])
def test_a_port_that_cannot_be_is_refused(port):
    found = CliRunner().invoke(app, ["ui", "--port", port])
    assert found.exit_code == 2 and "--port" in found.output


def test_a_home_that_is_not_there_is_not_made(tmp_path, monkeypatch):
    typo = tmp_path / "hmoe"
    found = CliRunner().invoke(app, ["ui", "--home", str(typo)])
    assert isinstance(found.exception, LabError) and f"{typo}: no home yet" in str(found.exception)
    monkeypatch.setenv("LAB_HOME", str(typo))
    assert isinstance(CliRunner().invoke(app, ["ui"]).exception, LabError)
    assert not typo.exists()


def asked(port: int, query: str, **variables: object) -> Any:
    found = httpx.post(f"http://127.0.0.1:{port}/graphql", json={"query": query, "variables": variables}, timeout=60)
    return next(iter(found.json()["data"].values()))


def runs(port: int, job: str) -> list[Any]:
    query = "query($job: String!) { runsOrError(filter: {pipelineName: $job}) { ... on Runs { results { id } } } }"
    return asked(port, query, job=job)["results"]


def launched(port: int, job: str, config: str) -> str:
    """What is said to the button that launches a job."""
    query = (
        "mutation($params: ExecutionParams!) { launchPipelineExecution(executionParams: $params) "
        "{ __typename ... on PythonError { message } } }"
    )
    selector = {"repositoryLocationName": "lab_pipeline", "repositoryName": "__repository__", "pipelineName": job}
    return str(asked(port, query, params={"selector": selector, "runConfigData": config, "mode": "default"}))


@pytest.mark.long
def test_the_real_ui_is_ended_by_the_script_that_started_it(tmp_path):
    """Webserver, daemon, their code servers and the pages, in the background of a shell."""
    port, home = free_port(), Home.open(tmp_path / "home")
    write_skill(tmp_path / "taxonomy", FREEFORM)
    home.settings_file.write_text(initial_settings(tmp_path / "taxonomy") + "\nsensors: {interval_seconds: 3600}\n")
    script = (
        f"{sys.executable} -m lab_pipeline.cli.app ui --home {home.root} --port {port} --pages-port {free_port()} & "
        "echo $!; read go; kill -INT $!; wait $!; echo ended $?"
    )
    shell = subprocess.Popen(["bash", "-c", script], cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert shell.stdout and shell.stdin
        ui = psutil.Process(int(shell.stdout.readline()))

        def is_up() -> bool:
            try:
                return httpx.get(f"http://127.0.0.1:{port}/server_info").status_code == 200
            except httpx.HTTPError:
                return False

        assert wait(is_up, 300)
        assert wait(lambda: runs(port, "snapshot_taxonomy") != [], 120), "a sensor gets its home"
        wanted = "resources: {lab: {config: {this_run: {seed: -1}}}}"
        assert wait(lambda: "launchpad, this_run: seed: Input should be greater" in launched(port, "retune", wanted), 120)
        assert runs(port, "retune") == [], "a refused value makes no run, whose assets would be red"
        started = ui.children(recursive=True)
        assert len(started) >= 4
        began = time.monotonic()
        shell.stdin.write("go\n")
        shell.stdin.flush()
        assert "ended 0" in shell.stdout.read()
        assert time.monotonic() - began < 30 and wait(lambda: gone(started), 30)
    finally:
        shell.kill()
        shell.wait()
