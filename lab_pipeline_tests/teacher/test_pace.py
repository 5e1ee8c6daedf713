from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Callable

import pytest

from lab_pipeline.teacher import pace
from lab_pipeline.teacher.pace import InFlightLimit, PerMinute, Turns


def simulated(limit: InFlightLimit, seconds: Callable[[int, int], float], replies: int, bears: int = 10_000) -> list[int]:
    """Let a server answer so many requests, of which there are always enough, and return the limit after each.

    Args:
        seconds: time of an answer, from the number of the request and how many are in flight with it.
        bears: in-flight requests beyond which the server refuses.
    """
    now, limits, numbers = 0.0, [], itertools.count()
    under_way: list[tuple[float, int, int, int, float, bool]] = []
    while len(limits) < replies:
        while len(under_way) < limit.now:
            number, sent_in = next(numbers), limit.round
            at_once = len(under_way) + 1
            refused = at_once > bears
            taken = 0.001 if refused else seconds(number, at_once)
            heapq.heappush(under_way, (now + taken, number, sent_in, at_once, taken, refused))
        now, number, sent_in, at_once, taken, refused = heapq.heappop(under_way)
        if refused:
            limit.refused(sent_in)
        else:
            limit.replied(sent_in, at_once, number % 2, taken)
            limits.append(limit.now)
    return limits


def test_while_latency_holds_the_limit_doubles_up_to_the_setting() -> None:
    limits = simulated(InFlightLimit(100), lambda number, at_once: 0.05, 200)
    assert [limit for limit, _ in itertools.groupby(limits)] == [16, 32, 64, 100]


@pytest.mark.parametrize("most", [1, 3, 16])
def test_the_setting_is_never_exceeded(most: int) -> None:
    assert set(simulated(InFlightLimit(most), lambda number, at_once: 0.05, 100)) == {most}


def test_a_limit_that_only_makes_replies_slower_is_taken_back() -> None:
    """A server with 16 slots: of twice as many requests, each takes twice as long."""
    limits = simulated(InFlightLimit(512), lambda number, at_once: 0.05 * max(1, at_once / 16), 5000)
    assert max(limits) <= 64
    assert sum(limits) / len(limits) < 40


def test_a_server_that_batches_is_given_all_that_it_gains_from() -> None:
    """Replies get slower with the batch, but much less than in proportion to it, as on a GPU."""
    limits = simulated(InFlightLimit(256), lambda number, at_once: 1 + at_once / 200, 3000)
    assert limits[-1] == 256


def test_short_and_long_replies_in_turn_are_not_taken_for_a_change() -> None:
    moments = random.Random(5)
    limits = simulated(InFlightLimit(64), lambda number, at_once: (20 if number % 2 else 0.1) * moments.uniform(0.8, 1.2), 3000)
    assert limits[-1] == 64


def test_after_a_refusal_the_limit_is_halved_once_and_rises_by_one_a_round() -> None:
    limit = InFlightLimit(64)
    simulated(limit, lambda number, at_once: 0.05, 200)
    sent_in = limit.round
    for _ in range(10):  # the requests of one round
        limit.refused(sent_in)
    assert limit.now == 32
    limits = simulated(limit, lambda number, at_once: 0.05, 300)
    assert [each for each, _ in itertools.groupby(limits)][:3] == [32, 33, 34]
    for _ in range(10):
        limit.refused(limit.round)
    assert limit.now == 1


def test_a_time_out_of_a_request_sent_rounds_ago_counts_too() -> None:
    limit = InFlightLimit(64)
    simulated(limit, lambda number, at_once: 0.05, 200)
    assert limit.round > 0
    limit.refused(0)
    assert limit.now == 32


def test_the_limit_settles_about_what_a_server_bears() -> None:
    limits = simulated(InFlightLimit(512), lambda number, at_once: 0.05, 20_000, bears=40)[5000:]
    assert 25 < sum(limits) / len(limits) <= 41
    assert max(limits) <= 42


def test_replies_to_requests_of_an_earlier_round_say_nothing_of_this_one() -> None:
    limit = InFlightLimit(64)
    for _ in range(100):
        limit.replied(-1, 16, 0, 9.0)
    assert (limit.now, limit.round) == (16, 0)


def order(turns: Turns, *texts: str, cancelled: str = "") -> list[str]:
    """The order in which requests get their turn that all came at once; the one with the text `cancelled` gives up before."""

    async def take() -> list[str]:
        taken: list[str] = []

        async def one(text: str) -> None:
            await turns.take((text,))
            try:
                taken.append(text)
                await asyncio.sleep(0)
            finally:
                turns.give_back()

        tasks = [asyncio.create_task(one(text), name=text) for text in texts]
        await asyncio.sleep(0)
        for task in tasks:
            if task.get_name() == cancelled:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return taken

    return asyncio.run(asyncio.wait_for(take(), 5))


def test_requests_with_the_same_beginning_follow_each_other() -> None:
    assert order(Turns(1), "m", "b2", "z", "b1", "n", "a") == ["m", "n", "z", "a", "b1", "b2"]


def test_equal_texts_keep_their_order_and_all_get_their_turn() -> None:
    assert len(order(Turns(3), *["same"] * 50)) == 50


@pytest.mark.parametrize("which", ["first", "second", "third"])
def test_a_request_that_gives_up_takes_no_turn_from_others(which: str) -> None:
    turns = Turns(1)
    left = {"first", "second", "third"} - {which}
    assert set(order(turns, "first", "second", "third", cancelled=which)) >= left
    assert order(turns, "later") == ["later"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    return now


def test_amounts_are_spread_over_the_minute(clock: list[float]) -> None:
    minute = PerMinute(600)
    assert [minute.wait(), minute.wait(20), minute.wait()] == pytest.approx([0, 0.1, 2.1])
    clock[0] += 60
    assert minute.wait() == 0, "what was not used in time is not kept"


def test_what_turned_out_to_be_more_or_less_is_made_good(clock: list[float]) -> None:
    minute = PerMinute(600)
    minute.wait(10)
    minute.correct(5)
    assert minute.wait(10) == pytest.approx(1.5)
    minute.correct(-10)
    assert minute.wait() == pytest.approx(1.5)


def test_a_pause_holds_all_and_is_never_shortened(clock: list[float]) -> None:
    minute = PerMinute(None)
    minute.pause(5)
    minute.pause(1)
    assert [minute.wait(), minute.wait()] == [5, 5]
    clock[0] += 6
    assert minute.wait() == 0
