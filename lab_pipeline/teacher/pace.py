"""Decide which request goes to a server next, and when: as many at once as it bears, and no faster than its limits allow."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Hashable
from statistics import fmean

from lab_pipeline.teacher.slots import Slots

_FIRST = 16
"""In-flight limit to begin with."""
_LEAST_GAIN = 0.25
"""Least gain in replies per second, as a share of the gain in requests in flight, for which a larger limit is kept."""
_TELLING = 1.25
"""Least rise of the requests in flight, as a factor, whose gain is told from chance."""
_REST = 10
"""Rounds after which a limit that did not pay is tried again: it may have been this process that was slow."""
_POLL_SECONDS = 0.02
"""Mean time between looks for a slot that another process has given back."""


class InFlightLimit:
    """Finds how many requests a server bears at once, from 1 to `most`.

    The limit rises while replies per second rise with it: it doubles each round until the server first has too much (slow
    start, Jacobson, SIGCOMM 1988). It is halved when the server refuses for too many requests or answers too late, and rises
    by one a round from then on: additive increase, multiplicative decrease (Chiu and Jain, *Computer Networks and ISDN
    Systems* 1989). A rise that only makes replies slower is taken back, as in TCP Vegas (Brakmo and Peterson, *IEEE JSAC*
    1995). A round is over after half as many replies to its own requests as the limit is.
    """

    def __init__(self, most: int) -> None:
        self.now = min(_FIRST, most)
        self.round = 0
        self._most = most
        self._doubles = True
        self._rest = 0
        self._halved_in = 0
        self._replies: list[tuple[int, Hashable, float]] = []
        """Of the replies to this round's requests: how many were in flight, kind, and time."""
        self._kept = self.now
        """The largest limit that paid; how many requests were in flight at it, and how long replies of each kind took."""
        self._usual_at_once = 0.0
        self._usual: dict[Hashable, float] = {}

    def replied(self, sent_in: int, at_once: int, kind: Hashable, seconds: float) -> None:
        """Count a reply that came while other requests waited for their turn.

        Args:
            sent_in: `round` when the request was sent.
            at_once: How many requests were in flight then, with this one.
            kind: What requests whose replies take about as long have in common.
        """
        if sent_in != self.round:
            return
        self._replies.append((at_once, kind, seconds))
        if 2 * len(self._replies) < self.now:
            return
        at_once_now = fmean(at_once for at_once, _, _ in self._replies)
        slower = [seconds / self._usual[kind] for _, kind, seconds in self._replies if kind in self._usual]
        more = at_once_now / self._usual_at_once if slower else 1.0
        telling = more >= _TELLING and self.now > self._kept
        if telling and more / fmean(slower) < 1 + _LEAST_GAIN * (more - 1):
            self._rest = _REST
            self._begin_round(self._kept)
            return
        if telling or self.now <= self._kept or not slower:
            times: dict[Hashable, list[float]] = defaultdict(list)
            for _, kind, seconds in self._replies:
                times[kind].append(seconds)
            self._kept, self._usual_at_once = self.now, at_once_now
            self._usual |= {kind: fmean(each) for kind, each in times.items()}
        self._rest = max(0, self._rest - 1)
        self._begin_round(self.now if self._rest else min(self._most, 2 * self.now if self._doubles else self.now + 1))

    def refused(self, sent_in: int) -> None:
        """Halve the limit, unless the request was sent before it was halved last."""
        if sent_in >= self._halved_in:
            self._doubles, self._kept, self._usual = False, max(1, self.now // 2), {}
            self._begin_round(self._kept)
            self._halved_in = self.round

    def _begin_round(self, limit: int) -> None:
        self.now = limit
        self.round += 1
        self._replies.clear()


class Turns:
    """Lets requests through, up to the limit in flight and the slots that are free, in the order of their texts.

    After a request comes the next larger of the texts that wait, and after the largest the smallest. So requests that begin
    with the same instructions, examples and passage are sent together, whichever leaf or stage they come from, and the
    server's cache of prefixes still holds their beginning.
    """

    def __init__(self, most: int, slots: Slots | None = None) -> None:
        self.limit = InFlightLimit(most)
        self._slots = slots
        self._trying_again = False
        self._in_flight = 0
        self._last: tuple[str, ...] = ()
        self._waiting: list[tuple[tuple[str, ...], int, asyncio.Future[int]]] = []
        self._numbers = itertools.count()

    @property
    def crowded(self) -> bool:
        """Tell whether requests wait, so that the limit is in use."""
        return bool(self._waiting)

    async def take(self, texts: tuple[str, ...]) -> int:
        """Wait for the turn of a request with these texts; `give_back` must follow. Return how many are in flight then."""
        turn = asyncio.get_running_loop().create_future()
        insort(self._waiting, (texts, next(self._numbers), turn))
        self._let_in()
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was let in before it was cancelled
                self.give_back()
            raise

    def give_back(self) -> None:
        self._in_flight -= 1
        if self._slots:
            self._slots.give_back()
            if self._slots.wanted_by_others():
                return self._try_again_soon()
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._in_flight < self.limit.now:
            if self._slots and not self._slots.take():
                return self._try_again_soon()
            texts, _, turn = self._waiting.pop(bisect_left(self._waiting, (self._last,)) % len(self._waiting))
            if turn.done():
                if self._slots:
                    self._slots.give_back()
                continue
            self._in_flight += 1
            self._last = texts
            turn.set_result(self._in_flight)

    def _try_again_soon(self) -> None:
        if self._waiting and not self._trying_again:
            self._trying_again = True
            asyncio.get_running_loop().call_later(random.uniform(0, 2 * _POLL_SECONDS), self._try_again)

    def _try_again(self) -> None:
        self._trying_again = False
        self._let_in()


class PerMinute:
    """Spreads amounts, such as requests or tokens, evenly over the minute; a limit of None lets all pass at once."""

    def __init__(self, limit: float | None) -> None:
        self._gap = 60 / limit if limit else 0.0
        self._next = 0.0

    def wait(self, amount: float = 1) -> float:
        """Return the seconds to wait before `amount` may be sent, and count it as sent then."""
        now = time.monotonic()
        start = max(now, self._next)
        self._next = start + amount * self._gap
        return start - now

    def correct(self, more: float) -> None:
        """Count `more` as sent too: what an amount was found to be, beyond what was expected."""
        self._next += more * self._gap

    def pause(self, seconds: float) -> None:
        """Let nothing pass for so long."""
        self._next = max(self._next, time.monotonic() + seconds)
