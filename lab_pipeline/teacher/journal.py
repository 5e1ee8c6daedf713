"""Journal every reply as soon as it arrives, so that no finished call is ever made again."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from lab_pipeline.core.progress import Progress
from lab_pipeline.core.storage import add_line, digest, flush, read_lines
from lab_pipeline.teacher.protocol import Reply, Request, Teacher, TeacherError, token_count


class BudgetSpent(TeacherError):
    """The run has made as many calls as `budgets.teacher_calls` allows; finished calls are kept."""


@dataclass
class Budget:
    """Calls that one run may still make, shared by all its leaves; None means no limit."""

    calls: int | None = None

    def spend(self) -> None:
        """Take one call from the budget; raise `BudgetSpent` if none is left."""
        if self.calls is None:
            return
        if self.calls == 0:
            raise BudgetSpent("the budget budgets.teacher_calls is spent; the next run goes on from here")
        self.calls -= 1


def read_journal(journal: Path) -> Iterator[tuple[str, Reply]]:
    """Yield the hash of each request with its reply.

    Earlier releases also stored replies without a text, which are skipped so that the call is made again, and token counts
    that are no numbers, which are read as 0.
    """
    for segment in sorted(journal.glob("*.jsonl")):
        for entry in read_lines(segment):
            stored = entry["reply"]
            if isinstance(stored["text"], str):
                tokens = {name: token_count(stored[name]) for name in ("prompt_tokens", "completion_tokens")}
                reply = Reply(**{**stored, **tokens})
                if reply.says_something:
                    yield entry["request"], reply


class JournaledTeacher:
    """Answer requests from a leaf's journal, and ask the teacher only for new ones.

    The journal is a folder of append-only segments, one for each process that wrote; a line torn by a crash is ignored.
    """

    def __init__(self, teacher: Teacher, journal: Path, budget: Budget | None = None) -> None:
        self.teacher = teacher
        self.budget = budget or Budget()
        self.calls = 0
        """Number of calls that reached the model."""
        self.recalled = 0
        """Number of calls that the journal answered."""
        self._segment = journal / f"{time.time_ns()}-{os.getpid()}.jsonl"
        self._replies: dict[str, Reply] = dict(read_journal(journal))
        self._pending: dict[str, asyncio.Future[Reply]] = {}

    @property
    def identity(self) -> str:
        return self.teacher.identity

    async def reply(self, request: Request) -> Reply:
        key = digest([self.teacher.identity, asdict(request)])
        if key in self._replies:
            self.recalled += 1
            return self._replies[key]
        if key in self._pending:
            return await self._pending[key]
        self.budget.spend()
        self._pending[key] = asyncio.ensure_future(self._ask(key, request))
        return await self._pending[key]

    async def settle(self) -> None:
        """Wait until every pending call has ended, and its reply is kept or its error raised."""
        await asyncio.gather(*self._pending.values(), return_exceptions=True)

    async def _ask(self, key: str, request: Request) -> Reply:
        try:
            reply = await self.teacher.reply(request)
            self.calls += 1
            if reply.no_answer:
                return reply
            stored = {name: value for name, value in asdict(reply).items() if name != "no_answer"}
            add_line(self._segment, {"request": key, "reply": stored})
            self._replies[key] = reply
            await asyncio.to_thread(flush, self._segment)  # takes milliseconds, in which other requests continue
            return reply
        finally:
            del self._pending[key]


class Counted:
    """Report a journaled teacher's replies as progress; replies from the journal do not count for its rate."""

    def __init__(self, teacher: JournaledTeacher, progress: Progress) -> None:
        self._teacher = teacher
        self._progress = progress
        self._calls = teacher.calls

    @property
    def identity(self) -> str:
        return self._teacher.identity

    async def reply(self, request: Request) -> Reply:
        reply = await self._teacher.reply(request)
        worked = self._teacher.calls - self._calls
        self._calls += worked
        self._progress.advance(worked=worked)
        return reply
