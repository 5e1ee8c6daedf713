from __future__ import annotations

import re
import time

from lab_pipeline.core.progress import Progress


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
    assert said[0].endswith("/s, 0 s left)")


def test_the_pause_begins_anew_with_each_word() -> None:
    said: list[str] = []
    progress = Progress("calls", 100, said.append, every_seconds=0.05)
    progress.advance()
    assert said == []
    time.sleep(0.06)
    progress.advance()
    progress.advance()
    assert [text.partition(" (")[0] for text in said] == ["calls: 2 of 100"]


def test_rate_and_time_left_come_from_the_steps_done() -> None:
    said: list[str] = []
    progress = Progress("calls", 30, said.append, every_seconds=0)
    time.sleep(0.1)
    progress.advance(10)
    rate, left = re.search(r"\(([\d.]+)/s, (\d+) s left\)", said[0]).groups()  # type: ignore[union-attr]
    assert 10 < float(rate) <= 100
    assert int(left) == round(20 / float(rate))


def test_a_note_stands_at_the_end() -> None:
    said: list[str] = []
    Progress("steps", 1, said.append).advance(note="loss 1.25")
    assert said[0].endswith("s left), loss 1.25")


def test_more_steps_than_foreseen_and_none_foreseen_do_no_harm() -> None:
    said: list[str] = []
    Progress("steps", 0, said.append).advance(3)
    Progress("steps", 2, said.append).advance(0)
    assert said[0].startswith("steps: 3 of 0 (") and said[0].endswith(" 0 s left)")
    assert len(said) == 1


def test_steps_of_an_earlier_process_count_but_are_not_in_the_rate(slow_clock: None) -> None:
    said: list[str] = []
    progress = Progress("steps", 88, said.append, done=66)
    progress.advance(2)
    progress.advance(2, worked=0)
    assert said == ["steps: 68 of 88 (0.2/s, 100 s left)", "steps: 70 of 88 (0.1/s, 180 s left)"]


def test_where_all_was_done_before_there_is_no_rate(slow_clock: None) -> None:
    said: list[str] = []
    Progress("calls", 3, said.append).advance(3, worked=0)
    assert said == ["calls: 3 of 3 (done before)"]
