from __future__ import annotations

import asyncio
import errno
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from lab_pipeline.core.progress import Progress
from lab_pipeline.core.storage import digest
from lab_pipeline.teacher import journal
from lab_pipeline.teacher.journal import Budget, BudgetSpent, Counted, JournaledTeacher, read_journal
from lab_pipeline.teacher.protocol import Message, Reply, Request, Teacher, TeacherError
from lab_pipeline_tests.scripted_teacher import ScriptedTeacher


def request(content: str, seed: int = 0) -> Request:
    return Request((Message("user", content),), 10, 0.7, seed)


def echo(asked: Request) -> Reply:
    return Reply(f"{asked.messages[-1].content}?", "stop", 3, 2, {"Yes": 0.75, "No": 0.25})


def ask(teacher: Teacher, *contents: str) -> list[Reply]:
    async def all_of_them() -> list[Reply]:
        return await asyncio.gather(*(teacher.reply(request(content)) for content in contents))

    return asyncio.run(all_of_them())


def test_a_reply_is_had_from_the_model_once_and_whole_from_the_journal_ever_after(tmp_path: Path) -> None:
    model = ScriptedTeacher(echo)
    first = JournaledTeacher(model, tmp_path)
    assert ask(first, "a") == ask(first, "a")
    assert (first.calls, first.recalled) == (1, 1)
    second = JournaledTeacher(model, tmp_path)
    assert ask(second, "a") == [echo(request("a"))]
    assert (second.calls, second.recalled) == (0, 1)
    assert len(model.requests) == 1


def test_what_the_journal_answers_moves_the_count_but_not_the_rate(tmp_path: Path, slow_clock: None) -> None:
    ask(JournaledTeacher(ScriptedTeacher(echo), tmp_path), "a", "b")
    said: list[str] = []
    counted = Counted(JournaledTeacher(ScriptedTeacher(echo), tmp_path), Progress("calls", 5, said.append))
    ask(counted, "a", "b")
    ask(counted, "c")
    ask(counted, "d")
    assert said == [
        "calls: 1 of 5 (done before)",
        "calls: 2 of 5 (done before)",
        "calls: 3 of 5 (30 s each, about 60 s left)",
        "calls: 4 of 5 (20 s each, about 20 s left)",
    ]


def test_equal_requests_under_way_are_one_call(tmp_path: Path) -> None:
    model = ScriptedTeacher(echo, pace=lambda number: 5)
    assert len({reply.text for reply in ask(JournaledTeacher(model, tmp_path), "a", "a", "b", "a")}) == 2
    assert len(model.requests) == 2


def test_everything_in_a_request_tells_calls_apart(tmp_path: Path) -> None:
    messages = (Message("user", "a"),)
    variants = [
        Request(messages, 10),
        Request(messages, 11),
        Request(messages, 10, 0.5),
        Request(messages, 10, seed=1),
        Request(messages, 10, choices=("Yes", "No")),
        Request((Message("system", "a"),), 10),
    ]
    teacher = JournaledTeacher(ScriptedTeacher(), tmp_path)
    for variant in variants:
        asyncio.run(teacher.reply(variant))
    assert teacher.calls == len(variants)


def test_another_model_is_asked_anew(tmp_path: Path) -> None:
    ask(JournaledTeacher(ScriptedTeacher(echo, "old"), tmp_path), "a")
    newer = JournaledTeacher(ScriptedTeacher(echo, "new"), tmp_path)
    ask(newer, "a")
    assert newer.calls == 1


def test_teacher_and_judge_share_one_journal(tmp_path: Path) -> None:
    teacher, judge = (JournaledTeacher(ScriptedTeacher(echo, name), tmp_path) for name in ("teacher", "judge"))
    ask(teacher, "a")
    ask(judge, "b")
    again = [JournaledTeacher(ScriptedTeacher(echo, name), tmp_path) for name in ("teacher", "judge")]
    ask(again[0], "a")
    ask(again[1], "b")
    assert [each.calls for each in again] == [0, 0]


def test_a_line_torn_by_a_crash_costs_that_call_alone(tmp_path: Path) -> None:
    ask(JournaledTeacher(ScriptedTeacher(echo), tmp_path), "a")
    ask(JournaledTeacher(ScriptedTeacher(echo), tmp_path), "b")
    (segment,) = [path for path in tmp_path.iterdir() if "b?" in path.read_text()]
    segment.write_bytes(segment.read_bytes()[:-9])
    after = JournaledTeacher(ScriptedTeacher(echo), tmp_path)
    ask(after, "a", "b")
    assert (after.calls, after.recalled) == (1, 1)


def test_a_failed_call_is_not_kept_and_reaches_everyone_who_waits_for_it(tmp_path: Path) -> None:
    def fails(asked: Request) -> str:
        raise TeacherError("no")

    async def both(teacher: JournaledTeacher) -> list[Reply | BaseException]:
        return await asyncio.gather(*(teacher.reply(request("a")) for _ in range(2)), return_exceptions=True)

    model = ScriptedTeacher(fails)
    failed = JournaledTeacher(model, tmp_path)
    assert [type(each) for each in asyncio.run(both(failed))] == [TeacherError, TeacherError]
    assert (failed.calls, len(model.requests)) == (0, 1)
    model.script = echo
    assert ask(failed, "a") == [echo(request("a"))]


def test_each_reply_is_on_disk_when_it_is_given(tmp_path: Path) -> None:
    teacher = JournaledTeacher(ScriptedTeacher(echo), tmp_path)
    for count, content in enumerate("abc", start=1):
        ask(teacher, content)
        lines = [line for path in tmp_path.iterdir() for line in path.read_text().splitlines()]
        assert len(lines) == count
        assert json.loads(lines[-1])["reply"]["text"] == f"{content}?"


def test_a_spent_budget_stops_calls_but_not_recalls(tmp_path: Path) -> None:
    budget = Budget(2)
    one, other = (JournaledTeacher(ScriptedTeacher(echo), tmp_path / name, budget) for name in ("one", "other"))
    ask(one, "a")
    ask(other, "a")
    ask(one, "a")
    with pytest.raises(BudgetSpent, match=r"budgets\.teacher_calls is spent; the next run goes on"):
        ask(one, "b")
    ask(other, "a")


@pytest.mark.parametrize(("limit", "name"), [({"tokens": 100}, "teacher_tokens"), ({"money": 1.0}, "teacher_money")])
def test_a_budget_of_tokens_or_money_stops_at_it_though_many_calls_are_in_flight(
    tmp_path: Path, limit: dict[str, Any], name: str
) -> None:
    """Each reply costs 5 tokens and 0.05; the first calls start before any cost is known."""

    async def all_at_once(teacher: JournaledTeacher, count: int) -> list[Any]:
        first = [await teacher.reply(request("first"))]
        others = (teacher.reply(request(str(number))) for number in range(count))
        found = await asyncio.gather(*others, return_exceptions=True)
        await teacher.settle()
        return first + found

    model = ScriptedTeacher(lambda asked: Reply(asked.messages[-1].content, "stop", 3, 2, money=0.05), pace=lambda number: 50)
    found = asyncio.run(all_at_once(JournaledTeacher(model, tmp_path, Budget(**limit)), 60))
    assert sum(isinstance(each, Reply) for each in found) == model.finished == 20
    assert {str(each) for each in found if not isinstance(each, Reply)} == {
        f"the budget budgets.{name} is spent; the next run goes on from here"
    }
    after = JournaledTeacher(model, tmp_path)
    asyncio.run(all_at_once(after, 60))
    assert (after.calls, after.recalled) == (41, 20), "the next run goes on"


def test_without_a_budget_calls_are_free(tmp_path: Path) -> None:
    teacher = JournaledTeacher(ScriptedTeacher(echo), tmp_path)
    ask(teacher, *map(str, range(50)))
    assert teacher.calls == 50


def test_calls_paid_for_when_the_budget_ends_can_be_waited_for_and_are_kept(tmp_path: Path) -> None:
    async def past_the_budget(teacher: JournaledTeacher) -> None:
        with pytest.raises(BudgetSpent):
            await asyncio.gather(*(teacher.reply(request(str(number))) for number in range(9)))
        await teacher.settle()

    model = ScriptedTeacher(echo, pace=lambda number: 20 * number)
    asyncio.run(past_the_budget(JournaledTeacher(model, tmp_path, Budget(4))))
    assert model.finished == 4
    after = JournaledTeacher(model, tmp_path)
    ask(after, *map(str, range(9)))
    assert (after.calls, after.recalled) == (5, 4)


def test_an_answer_that_is_none_is_not_kept_and_asked_for_again(tmp_path: Path) -> None:
    model = ScriptedTeacher(lambda asked: Reply("", "stop", 3, 2, no_answer="the teacher gave no answer: it refused: no"))
    teacher = JournaledTeacher(model, tmp_path)
    assert [reply.text for reply in [*ask(teacher, "a"), *ask(teacher, "a")]] == ["", ""]
    assert (teacher.calls, list(read_journal(tmp_path))) == (2, [])
    model.script = echo
    assert ask(JournaledTeacher(model, tmp_path), "a") == [echo(request("a"))]


@pytest.mark.parametrize("text", [None, [{"type": "text", "text": "a"}], 42, ""])
def test_an_entry_without_text_of_an_earlier_release_is_asked_for_again(tmp_path: Path, text: Any) -> None:
    ask(JournaledTeacher(ScriptedTeacher(echo), tmp_path), "a", "b")
    spoil(tmp_path, 0, text=text, probabilities={})
    after = JournaledTeacher(ScriptedTeacher(echo), tmp_path)
    assert ask(after, "a", "b") == [echo(request("a")), echo(request("b"))]
    assert (after.calls, after.recalled) == (1, 1)


def test_token_counts_of_null_of_an_earlier_release_are_read_as_0(tmp_path: Path) -> None:
    ask(JournaledTeacher(ScriptedTeacher(echo), tmp_path), "a")
    spoil(tmp_path, 0, prompt_tokens=None, completion_tokens=None)
    after = JournaledTeacher(ScriptedTeacher(echo), tmp_path)
    assert ask(after, "a") == [replace(echo(request("a")), prompt_tokens=0, completion_tokens=0)]
    assert (after.calls, after.recalled) == (0, 1)


def spoil(folder: Path, number: int, **values: Any) -> None:
    """Write other values into the reply of one entry."""
    (segment,) = folder.iterdir()
    entries = [json.loads(line) for line in segment.read_text().splitlines()]
    entries[number]["reply"] |= values
    segment.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))


def test_replies_that_come_together_are_flushed_together_and_none_is_used_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []

    def slowly(segment: Path) -> None:
        time.sleep(0.02)
        flushed.append(len(segment.read_text().splitlines()))

    async def each(teacher: JournaledTeacher, number: int) -> int:
        await teacher.reply(request(str(number)))
        return flushed[-1]

    async def all_of_them() -> list[int]:
        teacher = JournaledTeacher(ScriptedTeacher(echo, pace=lambda number: number), tmp_path)
        return await asyncio.gather(*(each(teacher, number) for number in range(100)))

    monkeypatch.setattr(journal, "flush", slowly)
    on_disk = asyncio.run(all_of_them())
    assert all(count > number for number, count in enumerate(on_disk))
    assert len(flushed) < 20 and flushed[-1] == 100


def test_a_flush_that_fails_reaches_all_whose_replies_it_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(segment: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def all_of_them(teacher: JournaledTeacher) -> list[Any]:
        return await asyncio.gather(*(teacher.reply(request(str(number))) for number in range(9)), return_exceptions=True)

    teacher = JournaledTeacher(ScriptedTeacher(echo), tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(journal, "flush", full)
        assert {type(each) for each in asyncio.run(all_of_them(teacher))} == {OSError}
    assert asyncio.run(all_of_them(teacher)) == [echo(request(str(number))) for number in range(9)]


def test_a_call_goes_on_when_nobody_waits_for_it_any_more(tmp_path: Path) -> None:
    async def cancelled(teacher: JournaledTeacher) -> None:
        waiting = asyncio.create_task(teacher.reply(request("a")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting.cancel()
        await teacher.settle()

    model = ScriptedTeacher(echo, pace=lambda number: 20)
    asyncio.run(cancelled(JournaledTeacher(model, tmp_path)))
    assert model.finished == 1 and len(list(read_journal(tmp_path))) == 1


def test_the_keys_of_requests_are_those_of_earlier_releases() -> None:
    asked = Request((Message("system", "Be brief."), Message("user", "Is it?")), 20, 0.7, 5, ("Yes", "No"))
    assert asked.key("model") == digest(["model", asdict(asked)]) == "a93aac60cf06a243a2da"
