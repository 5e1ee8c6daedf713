"""Kill -9 at random moments: nothing is lost, nothing is torn, nothing waits, and the outcome is that of an undisturbed run."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pyarrow.parquet as pq
import pytest

from lab_pipeline.config.settings import load_settings
from lab_pipeline.core.home import Home
from lab_pipeline.core.processes import name_of
from lab_pipeline.core.storage import folder_digest, read_json, write_json
from lab_pipeline.datasets.dataset import load_dataset
from lab_pipeline.registry.champion import current_champion
from lab_pipeline.reports.status import HomeStatus
from lab_pipeline.training.checkpoint import load_checkpoint
from lab_pipeline_tests.builders import FREEFORM, GROUNDED, edit_yaml, write_taxonomy
from lab_pipeline_tests.daemon import daemon, kill_tree, tree, wait_for
from lab_pipeline_tests.lab import OPEN_GATE, RECIPE, TestLab, lab, obliging
from lab_pipeline_tests.stub_endpoint import Answer, Asked

LONGER = {
    **RECIPE,
    "save_every_steps": 5,
    "knowledge": {**RECIPE["knowledge"], "epochs": 4, "learning_rate": 0.01},  # enough to be promoted
    "skills": {**RECIPE["skills"], "epochs": 4, "learning_rate": 0.01},
}


def unhurried(asked: Asked) -> Answer:
    return replace(obliging(asked), seconds=0.05)


@contextmanager
def survivor(folder: Path, taxonomy: Path, model: Path) -> Iterator[TestLab]:
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch, lab(folder, taxonomy, model, patch) as opened:
        opened.stub.reply = unhurried
        (folder / "recipe.yaml").write_text(json.dumps(LONGER))
        opened.set(gate=OPEN_GATE, sensors={"interval_seconds": 2}, schedule={"cron": "* * * * *"})
        yield opened


@dataclass
class Survivor:
    """A home that is killed again and again."""

    life: TestLab
    moments: random.Random
    edits: int = 0

    @property
    def home(self) -> Home:
        return self.life.home

    def give_work(self) -> None:
        """Other answers of one leaf's seeds: its rows are made anew, and as the seeds are rows, so is all that follows."""
        self.edits += 1

        def reword(value: dict[str, Any]) -> None:
            for seed in value["seed_examples"]:
                seed["answer"] = f"{seed['answer'].split(' Edit ')[0]} Edit {self.edits}."

        edit_yaml(self.life.taxonomy / (FREEFORM, GROUNDED)[self.edits % 2] / "qna.yaml", reword)

    def start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "lab_pipeline.cli.app", "retune", "--home", str(self.home.root)],
            stdout=(self.home.root / "said.txt").open("ab"),
            stderr=subprocess.STDOUT,
        )

    def finish(self) -> None:
        """An undisturbed retune; it starts without a wait and ends well."""
        process = self.start()
        assert process.wait(timeout=400) == 0, (self.home.root / "said.txt").read_text()[-3000:]

    def at(self, phase: str, pid: int, seconds: float = 300) -> bool:
        """Wait for a random moment within the phase; False if the process ended before it came."""
        begins = PHASES[phase]
        before = begins(self)
        deadline = time.monotonic() + seconds
        while name_of(pid) and time.monotonic() < deadline:
            if begins(self) != before:
                time.sleep(self.moments.uniform(0, 0.05 if phase == "promotion" else 0.8))
                return name_of(pid) is not None
            time.sleep(0.002)
        return False

    def phases(self) -> Iterator[str]:
        """All phases in random order, again and again."""
        while True:
            yield from self.moments.sample(list(PHASES), len(PHASES))

    def count(self, pattern: str) -> int:
        return sum(1 for _ in self.home.root.glob(pattern))


PHASES: dict[str, Callable[[Survivor], object]] = {
    "snapshot": lambda one: one.count("snapshots/*"),
    "generation": lambda one: one.life.calls(),
    "curation": lambda one: one.count("leaves/*/judged-*"),
    "mixing": lambda one: one.count("datasets/*"),
    "training": lambda one: one.count("checkpoints/*/resume-*/*"),
    "end of training": lambda one: one.count("checkpoints/*/adapter"),
    "evaluation": lambda one: one.count("candidates/*"),
    "promotion": lambda one: one.count("evaluations/*/evaluation.json"),
}
"""What changes when a phase begins."""


def assert_sound(home: Home) -> None:
    """Everything under its final name is whole, and the champion's files are those that were measured."""
    for path in home.root.rglob("*.json"):
        if not any(part.startswith((".writing-", "resume-")) for part in path.parts):
            json.loads(path.read_text())
    for path in home.root.rglob("*.parquet"):
        if not any(part.startswith(".writing-") for part in path.parts):
            pq.read_metadata(path)
    champion = current_champion(home)
    if champion:
        assert champion.verified
    for folder in home.checkpoints.glob("*"):
        found = load_checkpoint(folder)
        if found and found.adapter:
            assert folder_digest(found.adapter) == found.meta["adapter_digest"]


def processes_of(home: Home) -> list[str]:
    """Command lines of the processes that work on this home."""
    found = []
    for process in psutil.process_iter():
        try:
            mine = process.pid != os.getpid() and process.environ().get("LAB_HOME") == str(home.root)
            if mine and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def assert_at_rest(home: Home) -> None:
    """No process, no unfinished run, no slot taken, no call twice in the journal, no scratch."""
    wait_for("all processes to end", lambda: not processes_of(home), 20)
    assert not unfinished()
    with dg.DagsterInstance.get() as instance:
        for pool in ("teacher", "gpu"):
            assert instance.event_log_storage.get_concurrency_info(pool).active_slot_count == 0
    for leaf in home.root.glob("leaves/*"):
        asked = Counter(
            json.loads(line)["request"]
            for segment in leaf.glob("journal/*.jsonl")
            for line in segment.read_bytes().split(b"\n")
            if line.startswith(b"{") and line.endswith(b"}")
        )
        assert not [request for request, times in asked.items() if times > 1], leaf
    assert not list(home.root.rglob(".writing-*"))


def unchanged(home: Home) -> bool:
    return HomeStatus.of(home, load_settings(home.settings_file)).unchanged


def outcome(home: Home) -> dict[str, str]:
    """Hashes of both data sets and of the adapter that was trained on them."""
    skills = load_dataset(home, "skills").digest
    (adapter,) = [
        meta["adapter_digest"]
        for path in home.checkpoints.glob("skills-*/meta.json")
        if (meta := read_json(path))["dataset"] == skills
    ]
    return {"knowledge": load_dataset(home, "knowledge").digest, "skills": skills, "adapter": adapter}


def kill_worker(root: int) -> bool:
    """SIGKILL to the run's worker alone."""
    for process in tree(root):
        try:
            if "lab_pipeline.runtime.run_worker" in process.cmdline():
                process.kill()
                return True
        except psutil.NoSuchProcess:
            continue
    return False


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_killed_twice_and_the_outcome_is_that_of_an_undisturbed_run(tmp_path, tiny_model):
    taxonomy = write_taxonomy(tmp_path / "taxonomy")
    with survivor(tmp_path / "disturbed", taxonomy, tiny_model) as life:
        one = Survivor(life, random.Random(7))
        for phase, kill in (("generation", kill_tree), ("training", kill_worker)):
            process = one.start()
            assert one.at(phase, process.pid), phase
            assert kill(process.pid)
            process.wait(timeout=60)
            assert_sound(one.home)
        one.finish()
        assert_at_rest(one.home)
        assert current_champion(one.home)
        calls = life.calls()
        one.finish()
        assert life.calls() == calls
        disturbed = outcome(one.home)
    with survivor(tmp_path / "undisturbed", taxonomy, tiny_model) as life:
        Survivor(life, random.Random()).finish()
        assert outcome(life.home) == disturbed


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_thirty_kills(tmp_path, tiny_model):
    """Twenty from the command line, ten under the daemon; of the whole tree of processes, or of the run's worker alone."""
    taxonomy = write_taxonomy(tmp_path / "taxonomy")
    killed: Counter[str] = Counter()
    with survivor(tmp_path / "disturbed", taxonomy, tiny_model) as life:
        one = Survivor(life, random.Random(2026))
        killed += from_the_command_line(one, 20)
        one.finish()
        assert_at_rest(one.home)
        killed += under_the_daemon(one, 10, tmp_path / "daemon.log")
        one.finish()
        assert_at_rest(one.home)
        disturbed = outcome(one.home)
        asked = life.calls()
        journaled = sum(len(segment.read_bytes().splitlines()) for segment in one.home.root.glob("leaves/*/journal/*.jsonl"))
    print(f"killed: {dict(killed)}; {asked} calls asked, {journaled} journaled")
    assert sum(killed.values()) == 30
    assert {moment.removeprefix("daemon: ").split(",")[0] for moment in killed} == set(PHASES)
    with survivor(tmp_path / "undisturbed", taxonomy, tiny_model) as life:
        Survivor(life, random.Random()).finish()
        assert outcome(life.home) == disturbed


def from_the_command_line(one: Survivor, kills: int) -> Counter[str]:
    killed: Counter[str] = Counter()
    phases = one.phases()
    while killed.total() < kills:
        phase, whole = next(phases), one.moments.random() < 0.6
        one.give_work()  # so that the phase comes, whatever was done before
        process = one.start()
        if one.at(phase, process.pid) and (kill_tree(process.pid) if whole else kill_worker(process.pid)):
            killed[f"{phase}, {'tree' if whole else 'worker'}"] += 1
        process.wait(timeout=60)
        assert_sound(one.home)
    return killed


def under_the_daemon(one: Survivor, kills: int, log: Path) -> Counter[str]:
    killed: Counter[str] = Counter()
    phases = one.phases()
    while killed.total() < kills:
        with daemon(log) as process:
            while killed.total() < kills:
                phase, whole = next(phases), one.moments.random() < 0.4
                one.give_work()
                write_json(one.home.root / "retune-due.json", {"night": f"kill {killed.total()} {one.edits}"})
                if not one.at(phase, process.pid, seconds=90):
                    continue
                if whole:
                    killed[f"daemon: {phase}, tree"] += bool(kill_tree(process.pid))
                    break
                killed[f"daemon: {phase}, worker"] += kill_worker(process.pid)
            assert_sound(one.home)
    with daemon(log):
        wait_for("the daemon to bring all up to date", lambda: unchanged(one.home) or None, 400, every=2)
        wait_for("its runs to end", lambda: not unfinished() or None, 60)
    return killed


def unfinished() -> list[dg.DagsterRun]:
    with dg.DagsterInstance.get() as instance:
        return [run for run in instance.get_runs() if not run.is_finished]
