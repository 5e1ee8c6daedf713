from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from lab_pipeline.core.progress import Progress, is_report


def test_every_step_is_said_when_no_pause_is_asked_for() -> None:
    said: list[str] = []
    progress = Progress("calls", 1200, said.append, every_seconds=0)
    progress.advance()
    progress.advance(999)
    assert [text.partition(" (")[0] for text in said] == ["calls: 1 of 1,200", "calls: 1,000 of 1,200"]


def test_within_the_pause_only_the_last_step_is_said() -> None:
    said: list[str] = []
    progress = Progress("calls", 100, said.append, every_seconds=3600)
    for _ in range(100):
        progress.advance()
    assert len(said) == 1
    assert said[0].startswith("calls: 100 of 100 (")
    assert said[0].endswith("/s, took 1 s)")


def test_the_pause_begins_anew_with_each_word() -> None:
    said: list[str] = []
    progress = Progress("calls", 100, said.append, every_seconds=0.05)
    progress.advance()
    assert said == []
    time.sleep(0.06)
    progress.advance()
    progress.advance()
    assert [text.partition(" (")[0] for text in said] == ["calls: 2 of 100"]


def test_rate_and_time_left_come_from_the_steps_done(slow_clock: None) -> None:
    said: list[str] = []
    progress = Progress("calls", 5000, said.append)
    progress.advance(100)
    progress.advance(20)
    assert said == [
        "calls: 100 of 5,000 (10.0/s, about 8 min left)",
        "calls: 120 of 5,000 (6.0/s, about 14 min left)",
    ]


def test_long_work_is_reported_less_and_less_often_but_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("lab_pipeline.core.progress.time", SimpleNamespace(monotonic=lambda: clock.now))
    said: list[float] = []
    progress = Progress("steps", 10**9, lambda text: said.append(clock.now))
    for second in range(20_000):
        clock.now = float(second)
        progress.advance()
    assert [said[0], said[1], said[-1] - said[-2]] == [5, 10, 60]


def test_only_a_report_is_taken_for_one() -> None:
    said: list[str] = []
    Progress("leaves read", 3, said.append).advance(3, note="knowledge/a")
    assert is_report(said[0])
    assert not is_report("knowledge/a: kept 2 of 3 rows (5 teacher calls)")


def test_a_note_stands_at_the_end() -> None:
    said: list[str] = []
    Progress("steps", 1, said.append).advance(note="loss 1.25")
    assert said[0].endswith("took 1 s), loss 1.25")


def test_more_steps_than_foreseen_and_none_foreseen_do_no_harm() -> None:
    said: list[str] = []
    Progress("steps", 0, said.append).advance(3)
    Progress("steps", 2, said.append).advance(0)
    assert said[0].startswith("steps: 3 of 0 (") and said[0].endswith("/s, took 1 s)")
    assert len(said) == 1


def test_steps_of_an_earlier_process_count_but_are_not_in_the_rate(slow_clock: None) -> None:
    said: list[str] = []
    progress = Progress("steps", 88, said.append, done=66)
    progress.advance(2)
    progress.advance(2, worked=0)
    assert said == ["steps: 68 of 88 (5 s each, about 2 min left)", "steps: 70 of 88 (10 s each, about 3 min left)"]


def test_where_all_was_done_before_there_is_no_rate(slow_clock: None) -> None:
    said: list[str] = []
    Progress("calls", 3, said.append).advance(3, worked=0)
    assert said == ["calls: 3 of 3 (done before)"]
