"""One limit of requests in flight over all processes that ask one server."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab_pipeline.teacher.pace import Turns
from lab_pipeline.teacher.slots import Slots
from lab_pipeline_tests.daemon import wait_for
from lab_pipeline_tests.stub_endpoint import Answer, Asked, StubEndpoint

ASKING = """
import asyncio, sys
from pathlib import Path
from lab_pipeline.config.teachers import EndpointTeacherSettings
from lab_pipeline.teacher.endpoint import EndpointTeacher
from lab_pipeline.teacher.protocol import Message, Request

url, folder, name, count = sys.argv[1:]
teacher = EndpointTeacher(EndpointTeacherSettings(kind="endpoint", url=url, model="m", concurrency=64), slots=Path(folder))

async def ask():
    requests = [Request((Message("user", f"{name} {number}"),), max_tokens=8) for number in range(int(count))]
    await asyncio.gather(*(teacher.reply(request) for request in requests))

asyncio.run(ask())
"""


def test_runs_together_keep_to_the_limit_and_each_gets_its_share(tmp_path: Path) -> None:
    open_now, most, done = 0, 0, []

    async def request(turns: Turns, run: int) -> None:
        nonlocal open_now, most
        await turns.take((str(run),))
        open_now += 1
        most = max(most, open_now)
        await asyncio.sleep(0.001)
        open_now -= 1
        done.append(run)
        turns.give_back()

    async def runs() -> None:
        turns = [Turns(4, Slots(tmp_path, 4)) for _ in range(3)]
        await asyncio.gather(*(request(each, run) for run, each in enumerate(turns) for _ in range(60)))

    asyncio.run(asyncio.wait_for(runs(), 30))
    assert most == 4 and len(done) == 180
    assert set(done[:90]) == {0, 1, 2}  # who looks for a free slot first is chance: by 30 or so, all have had one


def test_a_run_that_is_alone_waits_for_nobody(tmp_path: Path) -> None:
    one = Slots(tmp_path, 8)
    assert one.take() and not one.wanted_by_others()
    other = Slots(tmp_path, 8)
    assert other.take() and other.wanted_by_others()


def test_the_slots_of_a_process_that_dies_are_free(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        Slots(tmp_path, 1).take()
        os._exit(9)
    os.waitpid(child, 0)
    assert Slots(tmp_path, 1).take()


@pytest.mark.long
def test_sixteen_processes_use_the_slots_of_a_server_and_no_more(tmp_path: Path) -> None:
    """Measured while all of them have work."""

    def slow(asked: Asked) -> Answer:
        return Answer(text="yes", seconds=4)  # a long answer's time

    with StubEndpoint(slow) as stub:
        command = [sys.executable, "-c", ASKING, stub.url, str(tmp_path / "slots")]
        asking = [subprocess.Popen([*command, str(number), "40"]) for number in range(16)]

        def seen() -> list[int]:
            names = [int(each.last.split()[0]) for each in stub.requests]
            return [names.count(number) for number in range(16)]

        wait_for("requests of all", lambda: min(seen()) > 0, 300, every=0.1)
        in_use = []
        while all(process.poll() is None for process in asking) and max(seen()) < 40:
            in_use.append(stub.open)
            time.sleep(0.05)
        assert [process.wait(120) for process in asking] == [0] * 16
        shares = seen()
    print(f"in use {statistics.fmean(in_use):.1f} of 64 over {len(in_use) / 20:.0f} s, most {stub.most_at_once}")
    assert shares == [40] * 16 and stub.most_at_once == 64
    assert statistics.fmean(in_use) >= 0.9 * 64
