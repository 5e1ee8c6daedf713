"""A signal ends what runs on the event loop, whatever the loop is doing, and then has its usual effect."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from lab_pipeline.core.event_loop import run


class Interrupted(BaseException):
    """What a signal handler raises, as Dagster's does."""


@pytest.fixture(autouse=True)
def raising_handler() -> Iterator[None]:
    def interrupt(number: int, frame: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGTERM, interrupt)
    yield
    signal.signal(signal.SIGTERM, before)


async def idle() -> None:
    await asyncio.sleep(30)


async def busy() -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        await asyncio.sleep(0)


async def in_callbacks() -> None:
    loop = asyncio.get_running_loop()

    def again() -> None:
        time.sleep(0.001)
        loop.call_soon(again)

    again()
    await asyncio.sleep(30)


async def in_tasks() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(busy())
        group.create_task(idle())


def send_soon(number: signal.Signals) -> None:
    threading.Timer(0.05, os.kill, (os.getpid(), number)).start()


@pytest.mark.parametrize("work", [idle, busy, in_callbacks, in_tasks], ids=lambda work: work.__name__)
def test_a_signal_ends_the_work_and_then_its_handler_runs(work) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    send_soon(signal.SIGTERM)
    with pytest.raises(Interrupted):
        run(work())
    assert signal.getsignal(signal.SIGTERM) is handler


def test_ctrl_c_ends_the_work() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
    send_soon(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(idle())
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    send_soon(signal.SIGTERM)

    async def a_while() -> str:
        await asyncio.sleep(0.2)
        return "done"

    assert run(a_while()) == "done"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_results_and_errors_come_through() -> None:
    async def fails() -> None:
        raise ValueError("no")

    async def works() -> int:
        return 7

    with pytest.raises(ValueError, match="no"):
        run(fails())
    in_a_thread: list[int] = []
    thread = threading.Thread(target=lambda: in_a_thread.append(run(works())))
    thread.start()
    thread.join()
    assert (run(works()), in_a_thread) == (7, [7])
