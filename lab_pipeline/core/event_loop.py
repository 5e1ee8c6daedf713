"""Run coroutines so that a signal ends them."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on uvloop's event loop, and return what it returns.

    SIGINT and SIGTERM cancel it; then their handlers run, such as Dagster's, which raises an error that ends the step. Called
    while the loop runs, they would have no effect: uvloop drops what a handler raises, and so does asyncio in callbacks.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        return uvloop.run(work)
    handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    received: list[signal.Signals] = []

    async def until_a_signal() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task

        def cancel(number: signal.Signals) -> None:
            received.append(number)
            task.cancel()

        for each, handler in handlers.items():
            if handler not in (signal.SIG_IGN, None):
                loop.add_signal_handler(each, cancel, each)
        return await work

    try:
        return uvloop.run(until_a_signal())
    finally:
        for each, handler in handlers.items():
            if handler is not None:  # None: set by other than Python, and left alone
                signal.signal(each, handler)
        for each in received:
            signal.raise_signal(each)
