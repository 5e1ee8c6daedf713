"""A refresh that is killed, cut off or out of room loses no reply, repeats no call but those under way, and ends the same."""

from __future__ import annotations

import asyncio
import errno
import json
import multiprocessing
import os
import random
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from lab_pipeline.config.settings import FlowSettings, Settings
from lab_pipeline.config.teachers import EndpointTeacherSettings
from lab_pipeline.core import storage
from lab_pipeline.core.home import Home
from lab_pipeline.core.machine import as_lab_error
from lab_pipeline.core.storage import file_digest
from lab_pipeline.instructions.plan import LeafFailure, LeafState, leaf_failure, plan_leaves
from lab_pipeline.instructions.refresh import refresh_leaves
from lab_pipeline.taxonomy.leaf import Kind
from lab_pipeline.taxonomy.snapshot import current_snapshot, take_snapshot
from lab_pipeline.teacher.choose import load_teachers, teacher_identities
from lab_pipeline.teacher.journal import JournaledTeacher
from lab_pipeline.teacher.protocol import Message, Reply, Request
from lab_pipeline_tests.builders import settings_for, write_skill
from lab_pipeline_tests.instructions.leaf_lab import Lab
from lab_pipeline_tests.lab import obliging
from lab_pipeline_tests.scripted_teacher import ScriptedTeacher
from lab_pipeline_tests.stub_endpoint import Asked, StubEndpoint

IN_FLIGHT = 4


def refresh(home: Path, settings: Settings) -> list[str]:
    """Refresh all leaves of a home; return those that failed."""
    opened = Home.open(home)
    plans = plan_leaves(opened, current_snapshot(opened), settings, *teacher_identities(settings))
    outcomes: list[LeafState | LeafFailure] = []
    refresh_leaves(
        opened, list(plans.values()), settings, *load_teachers(opened, settings), "commit", [].append, outcomes.append
    )
    return [outcome.leaf for outcome in outcomes if isinstance(outcome, LeafFailure)]


def tables(home: Path) -> dict[str, str]:
    return {str(path.relative_to(home)): file_digest(path) for path in home.glob("leaves/*/*.parquet")}


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("kills", "leaves", "seconds"),
    [pytest.param(30, 21, 0.05, marks=pytest.mark.long), (3, 3, 0.03)],
    ids=["30 kills", "3 kills"],
)
def test_kills_at_random_moments_repeat_only_the_calls_in_flight_and_change_no_byte(
    tmp_path: Path, kills: int, leaves: int, seconds: float
) -> None:
    """Each leaf takes 48 calls."""
    for number in range(leaves):
        write_skill(tmp_path / "taxonomy", f"compositional_skills/skill_{number:02}", seeds=5)
    moments, processes = random.Random(17), multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])
    with StubEndpoint(lambda asked: replace(obliging(asked), seconds=seconds)) as stub:
        flows = FlowSettings(**{kind: f"simple_{kind}" for kind in get_args(Kind)})
        teacher = EndpointTeacherSettings(kind="endpoint", url=stub.url, model="stub", concurrency=IN_FLIGHT, retries=0)
        settings = settings_for(tmp_path / "taxonomy", teacher=teacher, flows=flows)
        for home in ("undisturbed", "killed"):
            take_snapshot(Home.open(tmp_path / home), settings)
        assert refresh(tmp_path / "undisturbed", settings) == []
        wanted = {_key(asked) for asked in stub.requests}
        assert len(wanted) == len(stub.requests) == 48 * leaves
        stub.requests.clear()

        under_way: set[str] = set()
        for _ in range(kills):
            before = len(stub.requests)
            process = processes.Process(target=refresh, args=(tmp_path / "killed", settings))
            process.start()
            while len(stub.requests) == before and process.is_alive():
                time.sleep(0.001)
            time.sleep(moments.uniform(0, 0.6 * seconds * 48 * leaves / IN_FLIGHT / kills))
            process.kill()
            process.join()
            under_way |= {_key(asked) for asked in stub.requests[before:][-2 * IN_FLIGHT :]}
        killed_at = len(stub.requests)
        assert 0 < killed_at < 48 * leaves
        assert refresh(tmp_path / "killed", settings) == []

    asked = Counter(map(_key, stub.requests))
    repeated = {key for key, count in asked.items() if count > 1}
    assert set(asked) == wanted
    assert repeated <= under_way and sum(asked.values()) - len(asked) <= kills * IN_FLIGHT
    assert tables(tmp_path / "killed") == tables(tmp_path / "undisturbed")


def _key(asked: Asked) -> str:
    return json.dumps(asked.body, sort_keys=True)


def test_a_journal_torn_at_any_byte_of_its_last_record_loses_that_record_alone(tmp_path: Path) -> None:
    whole, calls = ask(tmp_path / "whole")
    assert calls == 2
    (segment,) = (tmp_path / "whole").iterdir()
    stored = segment.read_bytes()
    last = stored.index(b"\n") + 1
    for end in range(last, len(stored) + 1):
        torn = tmp_path / f"torn-{end}"
        torn.mkdir()
        (torn / segment.name).write_bytes(stored[:end])
        record_is_whole = end >= len(stored) - 1  # it needs no line feed
        assert ask(torn) == (whole, int(not record_is_whole)), end
        assert ask(torn) == (whole, 0), end


def ask(folder: Path) -> tuple[list[Reply], int]:
    """The replies to two requests, and how many of them were calls."""
    teacher = JournaledTeacher(ScriptedTeacher(lambda asked: f"«{asked.messages[0].content}»"), folder)

    async def in_turn() -> list[Reply]:
        return [await teacher.reply(Request((Message("user", content),), 10)) for content in ("first", "last")]

    return asyncio.run(in_turn()), teacher.calls


def test_a_full_disk_is_one_clear_error_and_the_next_refresh_goes_on(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = lab.elsewhere(tmp_path / "undisturbed")
    undisturbed.refresh()
    everything = sum(lab.calls())
    room = iter(range(5))

    def add_line(path: Path, value: Any) -> None:
        if next(room, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        storage.add_line(path, value)

    with monkeypatch.context() as patch:
        patch.setattr("lab_pipeline.teacher.journal.add_line", add_line)
        with pytest.raises(OSError) as refused:
            lab.refresh()
    said = str(as_lab_error(refused.value))
    assert "the disk is full; make room on it, and run again: what is finished is kept" in said and "\n" not in said
    assert all(leaf_failure(lab.home, plan) is None for plan in lab.plans().values()), "no leaf is to blame"
    lab.calls()
    assert lab.refresh().failures == {}
    assert sum(lab.calls()) == everything - 5
    assert [lab.tables(leaf) for leaf in lab.plans()] == [undisturbed.tables(leaf) for leaf in lab.plans()]
