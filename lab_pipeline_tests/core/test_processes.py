from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lab_pipeline.cli import app as cli
from lab_pipeline.core.home import PROJECT
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
    assert starting == {Path("core/processes.py"), Path("training/team.py")}
    assert 'os.environ["PYTHONSAFEPATH"] = "1"' in (PACKAGE / "training/team.py").read_text(encoding="utf-8"), "for torchrun"


def test_the_ui_and_what_dagster_starts_for_it_import_nothing_from_there_either(
    tmp_path: Path, hostile_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*ENVIRONMENT, "PYTHONSAFEPATH"):
        monkeypatch.setenv(name, "")
    monkeypatch.chdir(hostile_folder)
    started: list[list[str]] = []
    monkeypatch.setattr("os.execv", lambda path, command: started.append(command))
    monkeypatch.setattr("lab_pipeline.cli.pages.start_beside_ui", lambda home, port: f"http://127.0.0.1:{port}")
    CliRunner().invoke(cli.app, ["ui", "--home", str(tmp_path / "home")], catch_exceptions=False)
    assert started[0][1:5] == ["-P", "-m", "dagster", "dev"]
    found = subprocess.run([started[0][0], "-c", "import sys; print(sys.path)"], cwd=hostile_folder, capture_output=True)
    assert "''" not in found.stdout.decode()
