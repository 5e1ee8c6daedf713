"""`lab-pipeline pages`, and the pages that `lab-pipeline ui` starts beside the UI."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from lab_pipeline.cli.pages import start_beside_ui
from lab_pipeline.config.settings import initial_settings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.pages.links import link
from lab_pipeline.pages.server import address_of, listen, serve
from lab_pipeline_tests.builders import settings_for

UI = """
import sys, time
from pathlib import Path
from lab_pipeline.cli.pages import start_beside_ui
from lab_pipeline.core.home import Home
print(start_beside_ui(Home(Path(sys.argv[1])), int(sys.argv[2])), flush=True)
time.sleep(600)
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home.open(tmp_path / "home")
    home.settings_file.write_text(initial_settings(tmp_path))
    return home


def free_port() -> int:
    with listen("127.0.0.1", 0) as probe:
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/static/pages.css").status_code == 200
    except httpx.HTTPError:
        return False


def wait(until) -> bool:
    deadline = time.monotonic() + 60
    while not until() and time.monotonic() < deadline:
        time.sleep(0.2)
    return bool(until())


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_the_pages_end_with_the_ui_however_it_ends(home, end):
    port = free_port()
    ui = subprocess.Popen([sys.executable, "-c", UI, str(home.root), str(port)], stdout=subprocess.PIPE, text=True)
    try:
        assert ui.stdout and ui.stdout.readline() == f"http://127.0.0.1:{port}\n"
        assert wait(lambda: answers(port))
        assert link(home, settings_for(home.root), "models") == f"http://127.0.0.1:{port}/models"
        (pages,) = psutil.Process(ui.pid).children()
        ui.send_signal(end)
        assert wait(lambda: not pages.is_running() or pages.status() == psutil.STATUS_ZOMBIE) and not answers(port)
    finally:
        ui.kill()
        ui.wait()


def test_a_port_in_use_is_said_before_anything_starts(home):
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        for start in (
            lambda: start_beside_ui(home, port),
            lambda: serve(home, settings_for(home.root).pages, "127.0.0.1", port),
        ):
            with pytest.raises(LabError, match=f"port {port} of 127.0.0.1: Address already in use; choose another port"):
                start()


def test_pages_that_others_could_read_without_a_login_do_not_start(home):
    with pytest.raises(LabError, match="needs a login token"):
        serve(home, settings_for(home.root).pages, "0.0.0.0", free_port())


def test_an_ipv6_address_stands_in_brackets():
    assert (address_of("::1", 1), address_of("127.0.0.1", 2)) == ("http://[::1]:1", "http://127.0.0.1:2")
