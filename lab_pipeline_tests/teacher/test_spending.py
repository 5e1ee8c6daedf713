from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from lab_pipeline.config.teachers import EndpointTeacherSettings
from lab_pipeline.teacher.endpoint import EndpointTeacher
from lab_pipeline.teacher.journal import JournaledTeacher, read_journal
from lab_pipeline.teacher.protocol import Message, Request
from lab_pipeline.teacher.spending import Spent, numbers_of, total
from lab_pipeline_tests.stub_endpoint import Answer, StubEndpoint, in_turn

SOON = {"Retry-After": "0.01"}
USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 40,
    "prompt_tokens_details": {"cached_tokens": 64},
    "completion_tokens_details": {"reasoning_tokens": 30},
}
WITHOUT_DETAILS = {"prompt_tokens": 10, "completion_tokens": 4, "prompt_tokens_details": None}


def test_calls_are_counted_with_their_tokens_their_price_and_the_tries_that_failed(tmp_path: Path) -> None:
    busy, broken = Answer(status=429, headers=SOON), Answer(status=500, headers=SOON)
    answers = [busy, busy, broken, Answer("One.", usage=USAGE), Answer("Two.", usage=WITHOUT_DETAILS)]
    with StubEndpoint(in_turn(answers)) as stub:
        settings = EndpointTeacherSettings(kind="endpoint", url=stub.url, model="m", prompt_price=1, completion_price=10)
        spent = ask_twice(EndpointTeacher(settings), tmp_path)
        again = ask_twice(EndpointTeacher(settings), tmp_path)
    wanted = Spent(
        calls=2,
        prompt_tokens=110,
        cached_tokens=64,
        completion_tokens=44,
        reasoning_tokens=30,
        money=(110 + 440) / 1_000_000,
        retries={"HTTP 429": 2, "HTTP 500": 1},
    )
    assert spent == wanted and again == Spent(), "the journal answers for nothing"
    assert [reply.cached_tokens for _, reply in read_journal(tmp_path)] == [64, 0]
    assert all(reply.retries == () for _, reply in read_journal(tmp_path)), "a reply is the same, however it came"


def ask_twice(teacher: EndpointTeacher, journal: Path) -> Spent:
    journaled = JournaledTeacher(teacher, journal)

    async def in_order() -> None:
        for content in ("first", "second"):
            await journaled.reply(Request((Message("user", content),), 10))

    asyncio.run(in_order())
    return journaled.spent


def test_sums_and_numbers_that_plot() -> None:
    one = Spent(1, 10, 2, 5, 1, 0.25, 1.5, {"HTTP 429": 2})
    both = total([one, replace(one, calls=4, retries={"HTTP 429": 1, "TimeoutError": 1})])
    assert both == Spent(5, 20, 4, 10, 2, 0.5, 3.0, {"HTTP 429": 3, "TimeoutError": 1})
    assert numbers_of(both) == {
        "teacher_calls": 5,
        "prompt_tokens": 20,
        "cached_tokens": 4,
        "completion_tokens": 10,
        "reasoning_tokens": 2,
        "money": 0.5,
        "seconds": 3.0,
        "retries": 4,
        "retries HTTP 429": 3,
        "retries TimeoutError": 1,
    }
    assert total([]) == Spent()
