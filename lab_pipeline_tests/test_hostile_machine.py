"""A machine that refuses: full disk, read-only home, jumping clock, two users at once. One message, nothing lost."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from lab_pipeline.config.settings import SensorSettings, Settings, TaxonomySettings, load_settings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.machine import as_lab_error
from lab_pipeline.core.processes import is_alive, this_process
from lab_pipeline.core.storage import append_line, file_digest, read_json, read_lines, write_json, write_rows
from lab_pipeline.instructions.plan import LeafFailure, LeafPlan, backlog
from lab_pipeline.runtime.launcher import prepare
from lab_pipeline.taxonomy.snapshot import take_snapshot
from lab_pipeline.taxonomy.source import open_taxonomy
from lab_pipeline_tests.builders import write_taxonomy
from lab_pipeline_tests.lab import ENVIRONMENT, RECIPE, TestLab, lab
from lab_pipeline_tests.repositories import commit_files

KEPT = "what is finished is kept"


@contextmanager
def disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A small disk of its own, mounted on `folder`."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        # Only a disk of its own can be filled without harm to the machine, and only the root user may mount one.
        pytest.skip("this user may not mount a disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


class Ballast:
    """Takes all the room that a disk has left, as soon as a file that matches the pattern is there."""

    def __init__(self, disk: Path, home: Home, pattern: str) -> None:
        self._file = disk / "ballast"
        self._home = home
        self._pattern = pattern
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.full = False

    def __enter__(self) -> Ballast:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        self._file.unlink(missing_ok=True)

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            if not self.full and not any(self._home.root.glob(self._pattern)):
                continue
            self.full = True
            try:  # again and again, for what is cleaned up makes room
                with self._file.open("ab", buffering=0) as file:
                    while not self._over.is_set():
                        file.write(bytes(4096))
            except OSError:
                continue


def command_line(home: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {key: value for key, value in os.environ.items() if key not in ("LAB_HOME", "DAGSTER_HOME")}
    return subprocess.Popen(
        [sys.executable, "-m", "lab_pipeline.cli.app", *arguments, "--home", str(home)],
        env={**environment, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_command(home: Path, *arguments: str) -> tuple[str, str, int]:
    """What a command says, its errors and its exit code."""
    with command_line(home, *arguments) as process:
        try:
            said, error = process.communicate(timeout=240)
        except subprocess.TimeoutExpired:
            process.terminate()
            said, error = process.communicate()
            pytest.fail(f"{arguments}: not done within 240 s\n{said[-3000:]}{error[-3000:]}")
    return said, error, process.returncode


def refused(home: Path, *arguments: str) -> str:
    """The one message with which a command ends that the machine refused."""
    said, error, code = run_command(home, *arguments)
    assert code == 1, said[-2000:] + error[-2000:]
    assert "Traceback" not in said + error, said[-3000:] + error[-3000:]
    return error[error.index("error: ") :].strip()


def retuned(home: Path) -> dict:
    said, error, code = run_command(home, "retune", "--summary", str(home.parent / "summary.json"))
    assert code == 0, said[-3000:] + error[-3000:]
    return read_json(home.parent / "summary.json")


def data_hashes(home: Home) -> dict[str, str]:
    """Hashes of all data that a retune ends with, by their place in the home."""
    tables = [path for folder in ("leaves", "datasets") for path in (home.root / folder).rglob("*.parquet")]
    return {str(path.relative_to(home.root)): file_digest(path) for path in tables}


def asked(opened: TestLab) -> Counter[str]:
    """How often the teacher was asked each thing."""
    return Counter(json.dumps(request.body, sort_keys=True) for request in opened.stub.requests)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_disk_that_fills_up_at_any_moment_costs_no_finished_work(tmp_path, tiny_model):
    moments = {
        "while generating": "leaves/*/journal/*.jsonl",
        "while writing tables": "leaves/*/generated-*.parquet",
        "while mixing": "datasets/*",
        "while training": "checkpoints/*/resume-*/*",
        "while evaluating": "evaluations/scores/*",
    }
    with (
        pytest.MonkeyPatch.context() as patch,
        disk(tmp_path / "disk", megabytes=100) as small,
        lab(small, write_taxonomy(tmp_path / "taxonomy"), tiny_model, patch) as opened,
    ):
        recipe = {**RECIPE, "save_every_steps": 1}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        opened.set(recipe=str(tmp_path / "recipe.yaml"))
        home, seen = opened.home, {}
        for moment, pattern in moments.items():
            with Ballast(small, home, pattern) as ballast:
                message = refused(home.root, "retune")
            assert ballast.full, moment
            assert f"{home.root}: the disk is full" in message and KEPT in message, (moment, message)
            seen[moment] = asked(opened)
            assert not list(home.root.glob("leaves/*/failure.json")), moment
        retuned(home.root)

        in_flight = 16
        assert sum(count - 1 for count in asked(opened).values()) <= 2 * in_flight  # replies that found no room
        assert seen["while mixing"] == asked(opened), "what was generated is never asked again"

        other = Home.open(tmp_path / "undisturbed" / "home")
        other.settings_file.write_text(home.settings_file.read_text())
        retuned(other.root)
        assert data_hashes(other) == data_hashes(home)


@pytest.fixture
def plain(tmp_path, monkeypatch) -> Iterator[Home]:
    """A home on a disk of its own, never used, with a teacher that cannot be reached."""
    for name in ENVIRONMENT:
        monkeypatch.setenv(name, "")
    with disk(tmp_path / "disk", megabytes=50) as small:
        home = Home.open(small / "home")
        teacher = {"kind": "endpoint", "url": "http://127.0.0.1:9/v1", "model": "none", "retries": 0}
        taxonomy = {"path": str(write_taxonomy(tmp_path / "taxonomy"))}
        home.settings_file.write_text(yaml.safe_dump({"taxonomy": taxonomy, "teacher": teacher}))
        yield prepare(home.root, None)


def test_a_read_only_home_is_named_with_what_to_do_and_can_still_be_looked_at(plain):
    take_snapshot(plain, load_settings(plain.settings_file))
    remount(plain.root.parent, "ro")
    message = refused(plain.root, "retune")
    assert f"{plain.root}: the disk is read-only; mount it for writing" in message
    said, error, code = run_command(plain.root, "status", "--json")
    assert code == 0, error
    assert {leaf["status"] for leaf in json.loads(said)["leaves"].values()} == {"behind"}


def test_a_new_home_on_a_read_only_disk_is_refused(plain):
    remount(plain.root.parent, "ro")
    other = plain.root.parent / "other"
    assert f"{other}: cannot be written (Read-only file system)" in refused(other, "retune", "--taxonomy", "data/taxonomy")


@pytest.mark.long
def test_of_two_users_who_start_at_once_one_is_told_to_wait(plain):
    both = [command_line(plain.root, "retune") for _ in range(2)]
    first, second = sorted(process.communicate(timeout=120)[1] for process in both)
    assert [process.returncode for process in both] == [1, 1]
    assert first == f"error: {plain.root}: another retune is running on this home; wait for it to end\n"
    assert second.startswith("error: no leaf has a row to train on")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "HOME: the disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "HOME/leaves/x"), "HOME: the disk quota is used up"),
        (PermissionError(errno.EACCES, "Permission denied", "/elsewhere/y"), "/elsewhere/y: this user may not read or write"),
        (sqlite3.OperationalError("database or disk is full"), "HOME: the disk is full"),
        (sqlite3.OperationalError("attempt to write a readonly database"), "HOME: the disk is read-only"),
        (Exception("I/O error: No space left on device (os error 28)"), "HOME: the disk is full"),
    ],
)
def test_what_a_machine_refuses_is_told_with_the_path_and_what_to_do(tmp_path, monkeypatch, error, said):
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    if isinstance(error, OSError) and error.filename:
        error.filename = error.filename.replace("HOME", str(tmp_path))
    wrapped = RuntimeError("the step failed")
    wrapped.__cause__ = error
    for each in (error, wrapped):
        assert str(as_lab_error(each)).startswith(said.replace("HOME", str(tmp_path))), each


def test_a_defect_is_not_taken_for_a_refusal(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    assert as_lab_error(KeyError("x")) is None
    assert as_lab_error(FileNotFoundError(errno.ENOENT, "No such file", "x")) is None
    mine = LabError("mine")
    assert as_lab_error(mine) is mine


def test_a_full_disk_tears_at_most_the_line_being_added_and_the_next_one_is_whole(tmp_path):
    with disk(tmp_path / "disk", megabytes=1) as small:
        path = small / "journal.jsonl"
        lines = 0
        with pytest.raises(OSError, match="No space left"):
            while True:
                append_line(path, {"number": lines, "text": "x" * 50_000})
                lines += 1
        assert path.stat().st_size > lines * 50_000 + 1000, "the last line was torn"
        remount(small, "size=2m")
        append_line(path, {"number": "after"})
        assert [line["number"] for line in read_lines(path)] == [*range(lines), "after"]
        with pytest.raises(OSError, match="No space left"):
            write_rows(small / "table.parquet", [{"x": os.urandom(3_000_000)}], pa.schema([("x", pa.binary())]))
        assert sorted(path.name for path in small.iterdir()) == ["journal.jsonl"]


@pytest.mark.parametrize("jump", [timedelta(days=-400), timedelta(days=400)])
def test_a_leaf_waits_no_longer_when_the_clock_jumps(tmp_path, jump):
    home = Home.open(tmp_path)
    plan = LeafPlan("skills/x", "source", None, "generated", "judged", "curated", [])
    now = datetime.now(UTC)
    failure = LeafFailure(plan.leaf, "down", 1, {}, plan.curated, now.isoformat())
    write_json(home.leaf(plan.leaf) / "failure.json", asdict(failure))
    assert backlog(home, {plan.leaf: plan}, SensorSettings(), now).waiting
    assert backlog(home, {plan.leaf: plan}, SensorSettings(), now + jump).due == [plan.leaf]


def test_the_name_of_a_process_does_not_depend_on_the_time_of_day(monkeypatch):
    before = this_process()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert this_process() == before and is_alive(before)


def test_an_export_of_a_taxonomy_survives_a_clock_that_was_set_back(tmp_path):
    repository = tmp_path / "repository"
    commit_files(repository, {"README.md": "first"})
    home = Home.open(tmp_path / "home")
    settings = Settings(taxonomy=TaxonomySettings(path=str(repository), ref="HEAD"))
    for number in range(5):
        commit_files(repository, {"README.md": f"text {number}"})
        folder = open_taxonomy(home, settings).folder
        assert (folder / "README.md").read_text() == f"text {number}"
        os.utime(folder, (2e9 - number, 2e9 - number))  # as if it had been made long after the next one
