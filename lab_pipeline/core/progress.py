"""Report the progress of long work from time to time: steps done, rate, time left."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from lab_pipeline.core.formats import duration

Say = Callable[[str], None]

_REPORT = re.compile(r"[^\n]+: [\d,]+ of [\d,]+ \([^\n]*")
_LONGEST_PAUSE = 60.0


def is_report(text: str) -> bool:
    """Tell whether a message is a report of progress, which the next one replaces."""
    return _REPORT.fullmatch(text) is not None


class Progress:
    """Counts steps and reports them through `say`, at most once in `every_seconds`, but always when they reach `total`.

    The longer the work takes, the longer are the pauses: a fiftieth of the time so far, up to a minute.

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
        taken = now - self._started
        pause = max(self._every, min(taken / 50, _LONGEST_PAUSE))
        if now - self._reported < pause and not self.done - steps <= self.total <= self.done:
            return
        self._reported = now
        text = f"{self.what}: {self.done:,} of {self.total:,} ({self._pace(taken)})"
        self._say(f"{text}, {note}" if note else text)

    def _pace(self, taken: float) -> str:
        if not self.worked:
            return "done before"
        each = max(taken, 1e-6) / self.worked
        rate = f"{1 / each:,.{0 if each < 0.1 else 1}f}/s" if each < 1 else f"{duration(each)} each"
        left = self.total - self.done
        return f"{rate}, about {duration(left * each)} left" if left > 0 else f"{rate}, took {duration(taken)}"
