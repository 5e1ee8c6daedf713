"""`lab-pipeline pages`."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab_pipeline.config.settings import initial_settings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.pages.server import address_of, listen, serve
from lab_pipeline_tests.builders import settings_for


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home.open(tmp_path / "home")
    home.settings_file.write_text(initial_settings(tmp_path))
    return home


def test_a_port_in_use_is_said_before_anything_starts(home):
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LabError, match=f"port {port} of 127.0.0.1: Address already in use; choose another one with --port"):
            serve(home, settings_for(home.root).pages, "127.0.0.1", port)


def test_pages_that_others_could_read_without_a_login_do_not_start(home):
    with pytest.raises(LabError, match="needs a login token"):
        serve(home, settings_for(home.root).pages, "0.0.0.0", 3001)


def test_an_ipv6_address_stands_in_brackets():
    assert (address_of("::1", 1), address_of("127.0.0.1", 2)) == ("http://[::1]:1", "http://127.0.0.1:2")
