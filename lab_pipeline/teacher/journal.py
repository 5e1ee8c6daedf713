"""Store every answer of a teacher or judge before it is used, so that no answered call is ever made again."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from lab_pipeline.config.settings import Settings
from lab_pipeline.core.progress import Progress
from lab_pipeline.core.storage import add_line, each_line, flush
from lab_pipeline.teacher.protocol import Reply, Request, Teacher, TeacherError, token_count
from lab_pipeline.teacher.spending import Spent

_STORED = [field.name for field in fields(Reply) if field.name not in ("no_answer", "retries")]


class BudgetSpent(TeacherError):
    """Raised instead of a call for which the `Budget` has none left; the message says so. Journals keep the replies so far, so
    the next run goes on from there."""


@dataclass
class Budget:
    """Limit the calls, tokens and money that one run may spend; None means no limit.

    A refresh of leaves has one budget for teacher and judge together over all leaves, and an evaluation has one for the judge.
    The cost of a call is known only when its reply arrives. Until then, the call counts as the mean of the calls before; and if
    tokens or money are limited, only `at_once` calls are in flight.
    """

    calls: int | None = None
    tokens: int | None = None
    money: float | None = None
    at_once: int = 16
    _calls: int = 0
    _tokens: int = 0
    _money: float = 0.0
    _in_flight: int = 0

    def __post_init__(self) -> None:
        unknown = self.tokens is not None or self.money is not None
        self._turns = asyncio.Semaphore(self.at_once) if unknown else None

    @classmethod
    def of(cls, settings: Settings) -> Budget:
        """Return the budget in the settings; as many calls are in flight as teacher and judge together take at once."""
        models, limits = (settings.teacher, *([settings.judge] if settings.judge else [])), settings.budgets
        at_once = sum(model.concurrency if model.kind == "endpoint" else model.batch_size for model in models)
        return cls(limits.teacher_calls, limits.teacher_tokens, limits.teacher_money, at_once)

    async def spend(self) -> None:
        """Take one call from the budget, when it is its turn; `pay` follows when it is over.

        Raises:
            BudgetSpent: none is left.
        """
        if self._turns:
            await self._turns.acquire()
        try:
            self._require_rest()
        except BudgetSpent:
            if self._turns:
                self._turns.release()
            raise
        self._in_flight += 1

    def _require_rest(self) -> None:
        started = self._calls + self._in_flight
        mean_tokens, mean_money = (self._tokens / self._calls, self._money / self._calls) if self._calls else (0, 0)
        expected = 1 + self._in_flight
        for name, limit, spent in (
            ("teacher_calls", self.calls, started + 1),
            ("teacher_tokens", self.tokens, self._tokens + expected * mean_tokens),
            ("teacher_money", self.money, self._money + expected * mean_money),
        ):
            if limit is not None and spent > limit * (1 + 1e-9):  # sums of prices are rounded
                raise BudgetSpent(f"the budget budgets.{name} is spent; the next run goes on from here")

    def pay(self, reply: Reply | None) -> None:
        """Note that a call is over, and what it cost; None if it failed."""
        self._in_flight -= 1
        if self._turns:
            self._turns.release()
        self._calls += 1
        if reply:
            self._tokens += reply.prompt_tokens + reply.completion_tokens
            self._money += reply.money


def read_journal(journal: Path) -> Iterator[tuple[str, Reply]]:
    """Yield (hash of the request, reply) for each stored reply of a journal's folder, oldest file first.

    Incomplete lines are skipped. Earlier releases also stored replies that answer nothing, which are skipped so that the call
    is made again, and token counts that are no integers, which are read as 0.
    """
    for segment in sorted(journal.glob("*.jsonl")):
        for entry in each_line(segment):
            stored = entry["reply"]
            if isinstance(stored["text"], str):
                tokens = {name: token_count(stored[name]) for name in ("prompt_tokens", "completion_tokens")}
                reply = Reply(**{**stored, **tokens})
                if reply.says_something:
                    yield entry["request"], reply


class JournaledTeacher:
    """A teacher or judge that answers requests from a journal, and asks `teacher` only what the journal does not answer.

    Each call of `teacher` counts against the budget; if that is spent, `reply` raises `BudgetSpent`. Equal requests at the same
    time share a call. A reply with `no_answer` is returned but not stored. The journal is a folder in which each writer has an
    append-only file of its own; a line torn by a crash is ignored.

    An answer is written when it arrives, and `reply` returns it when it is on disk. Answers that arrive during one flush share
    the next, so a killed process loses none, and a power cut those of two flushes at most, from which nothing was made yet.
    """

    def __init__(self, teacher: Teacher, journal: Path, budget: Budget | None = None) -> None:
        self.teacher = teacher
        self.budget = budget or Budget()
        self.calls = 0
        """Number of calls to which `teacher` replied."""
        self.spent = Spent()
        """What these calls took. May be replaced between calls, to count those of the next stage apart."""
        self.recalled = 0
        """Number of requests that the journal answered."""
        self._segment = journal / f"{time.time_ns()}-{os.getpid()}.jsonl"
        self._replies: dict[str, Reply] = dict(read_journal(journal))
        self._pending: dict[str, asyncio.Future[Reply]] = {}
        self._one_flush = asyncio.Lock()
        self._next_flush: asyncio.Future[None] | None = None

    @property
    def identity(self) -> str:
        return self.teacher.identity

    async def reply(self, request: Request) -> Reply:
        key = request.key(self.teacher.identity)
        if key in self._replies:
            self.recalled += 1
            return self._replies[key]
        if key not in self._pending:
            self._pending[key] = asyncio.ensure_future(self._ask(key, request))
            self._pending[key].add_done_callback(_note_error)
        return await asyncio.shield(self._pending[key])  # a call that is paid for goes on if nobody waits for it any more

    async def settle(self) -> None:
        """Wait until no call is pending, and so every answer is stored. Errors reach the callers of `reply` only."""
        await asyncio.gather(*self._pending.values(), return_exceptions=True)

    async def _ask(self, key: str, request: Request) -> Reply:
        try:
            await self.budget.spend()
            reply = None
            try:
                reply = await self.teacher.reply(request)
                self.calls += 1
                self.spent.add(reply)
                if reply.no_answer:
                    return reply
                stored = {name: getattr(reply, name) for name in _STORED}
                add_line(self._segment, {"request": key, "reply": stored})
                await self._flushed()
                self._replies[key] = reply
                return reply
            finally:
                self.budget.pay(reply)
        finally:
            del self._pending[key]

    async def _flushed(self) -> None:
        """Wait until what is written by now is on disk; all who wait for the flush under way to end share the next one."""
        if self._next_flush is None:
            self._next_flush = asyncio.ensure_future(self._flush())
        await self._next_flush

    async def _flush(self) -> None:
        async with self._one_flush:
            self._next_flush = None  # it does not hold what is written from here on
            await asyncio.to_thread(flush, self._segment)


def _note_error(call: asyncio.Future[Reply]) -> None:
    """Tell asyncio that the error of a call is known, even if nobody waits for the call any more."""
    if not call.cancelled():
        call.exception()


class Counted:
    """A journaled teacher that reports each reply to `progress`; replies from the journal do not count for the rate."""

    def __init__(self, teacher: JournaledTeacher, progress: Progress) -> None:
        self._teacher = teacher
        self._progress = progress
        self._calls = teacher.calls

    @property
    def identity(self) -> str:
        return self._teacher.identity

    def charge(self, spent: Spent) -> None:
        """Count what the calls from now on take in `spent`."""
        self._teacher.spent = spent

    async def reply(self, request: Request) -> Reply:
        reply = await self._teacher.reply(request)
        worked = self._teacher.calls - self._calls
        self._calls += worked
        self._progress.advance(worked=worked)
        return reply
