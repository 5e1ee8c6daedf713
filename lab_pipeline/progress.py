"""Progress of long work: what, how many, how fast, time left; said now and then, not at every step."""

from __future__ import annotations

import time
from collections.abc import Callable

Say = Callable[[str], None]


class Progress:
    """Counts steps of one piece of work and says where it stands, at most every `every_seconds`, and when it passes `total`."""

    def __init__(self, what: str, total: int, say: Say, every_seconds: float = 5.0) -> None:
        self.what = what
        self.total = total
        self.done = 0
        self._say = say
        self._every = every_seconds
        self._started = self._said = time.monotonic()

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.done += steps
        now = time.monotonic()
        if now - self._said < self._every and not self.done - steps <= self.total <= self.done:
            return
        self._said = now
        rate = self.done / max(now - self._started, 1e-6)
        left = max(self.total - self.done, 0) / rate if rate else 0
        text = f"{self.what}: {self.done:,} of {self.total:,} ({rate:.1f}/s, {left:.0f} s left)"
        self._say(f"{text}, {note}" if note else text)
