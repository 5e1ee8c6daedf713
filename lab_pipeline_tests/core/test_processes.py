from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from lab_pipeline.cli import app as cli
from lab_pipeline.core.home import PROJECT, Home
from lab_pipeline.core.processes import python_module
from lab_pipeline_tests.lab import ENVIRONMENT

PACKAGE = PROJECT / "lab_pipeline"


def test_a_child_imports_nothing_from_the_working_directory(hostile_folder: Path) -> None:
    done = subprocess.run(
        python_module("lab_pipeline.training", "no-spec.json"),
        cwd=hostile_folder,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
    )
    assert "no-spec.json" in done.stderr.splitlines()[-1], done.stderr


def test_every_child_python_is_started_that_way() -> None:
    starting = {path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if '"-m"' in path.read_text(encoding="utf-8")}
    assert starting == {
        Path("core/processes.py"),
        Path("training/team.py"),
        Path("defs/train_job.py"),
    }  # the last two: torchrun
    assert 'os.environ["PYTHONSAFEPATH"] = "1"' in (PACKAGE / "training/team.py").read_text(encoding="utf-8"), "for torchrun"


def test_the_ui_and_what_dagster_starts_for_it_import_nothing_from_there_either(
    tmp_path: Path, hostile_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*ENVIRONMENT, "PYTHONSAFEPATH"):
        monkeypatch.setenv(name, "")
    monkeypatch.chdir(hostile_folder)
    home = Home.open(tmp_path / "home")
    home.settings_file.write_text("taxonomy: {path: .}\n")
    started: list[tuple[list[str], dict[str, Any]]] = []

    def popen(command: list[str], **options: Any) -> SimpleNamespace:
        started.append((command, options))
        return SimpleNamespace(poll=lambda: 1, returncode=1)

    monkeypatch.setattr("lab_pipeline.runtime.ui.subprocess", SimpleNamespace(Popen=popen, DEVNULL=subprocess.DEVNULL))
    monkeypatch.setattr("lab_pipeline.runtime.ui._end", lambda children: None)
    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    monkeypatch.setattr("lab_pipeline.runtime.ui.listen", lambda *arguments: SimpleNamespace(close=lambda: None))
    found = CliRunner().invoke(cli.app, ["ui", "--home", str(home.root)])
    assert "the UI ended by itself with exit code 1" in str(found.exception)
    (command, options), _ = started
    assert command[1:5] == ["-P", "-m", "dagster", "dev"] and options["env"]["PYTHONSAFEPATH"] == "1"
    script = [command[0], "-c", "import sys; print(sys.path)"]
    printed = subprocess.run(script, cwd=hostile_folder, env=options["env"], capture_output=True, text=True).stdout
    assert "''" not in printed
