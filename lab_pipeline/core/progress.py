"""Report the progress of long work from time to time: steps done, rate, time left."""

from __future__ import annotations

import time
from collections.abc import Callable

Say = Callable[[str], None]


class Progress:
    """Counts steps and reports them through `say`, at most once in `every_seconds`, but always when they reach `total`.

    `done` is the number of steps that an earlier process has finished. Rate and time left are computed from the steps that
    this process worked on, without steps whose results an earlier process had stored.
    """

    def __init__(self, what: str, total: int, say: Say, every_seconds: float = 5.0, done: int = 0) -> None:
        self.what = what
        self.total = total
        self.done = done
        self.worked = 0
        self._say = say
        self._every = every_seconds
        self._started = self._reported = time.monotonic()

    def advance(self, steps: int = 1, note: str = "", worked: int | None = None) -> None:
        """Count `steps` further steps, and report if it is time to.

        Args:
            note: Added to the end of the report.
            worked: How many of the steps this process worked on; None means all of them.
        """
        self.done += steps
        self.worked += steps if worked is None else worked
        now = time.monotonic()
        if now - self._reported < self._every and not self.done - steps <= self.total <= self.done:
            return
        self._reported = now
        rate = self.worked / max(now - self._started, 1e-6)
        pace = f"{rate:.1f}/s, {max(self.total - self.done, 0) / rate:.0f} s left" if rate else "done before"
        text = f"{self.what}: {self.done:,} of {self.total:,} ({pace})"
        self._say(f"{text}, {note}" if note else text)
