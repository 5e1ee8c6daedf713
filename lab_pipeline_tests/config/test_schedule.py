from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from dagster._utils.schedules import is_valid_cron_schedule, schedule_execution_time_iterator
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from lab_pipeline.config.schedule import ScheduleSettings


def cron_field(*names: str) -> st.SearchStrategy[str]:
    number = st.one_of(st.integers(0, 32).map(str), st.sampled_from(names or ("0", "00")))
    part = st.one_of(
        st.just("*"), number, st.tuples(number, number).map("-".join), st.sampled_from(["L", "LW", "5L", "1#2", "?"])
    )
    stepped = st.one_of(part, st.tuples(part, number).map("/".join))
    return st.one_of(st.just("*"), stepped, st.lists(stepped, max_size=3).map(",".join))


@given(st.tuples(*[cron_field()] * 3, cron_field("JAN", "FEB", "jul"), cron_field("SUN", "fri", "7")).map(" ".join))
@example("*/15 0,12 1-28/7 1-6,12 1-5")
@example("0 2 31 * *")
@example("0 2 29 2 *")
@example("30 2 * JUL-SEP MON,wed-FRI/2,7")
@example("* * * * 0-SUN")
@example("0  2\t* * *")
def test_what_is_a_cron_here_is_the_same_one_to_dagster(cron):
    try:
        ScheduleSettings(cron=cron)
    except ValidationError:
        return
    assert is_valid_cron_schedule(cron)
    ours = CronSim(cron, datetime(2026, 1, 1, tzinfo=UTC))
    theirs = dagster_times(cron, datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC))
    assert [time.isoformat() for time in islice(ours, 3)] == [time.isoformat() for time in islice(theirs, 3)]


@pytest.mark.parametrize("cron", ["*/15 0,12 1-28/7 1-6,12 1-5", "0 2 31 * *", "0 2 29 2 *", "30 2 * JUL-SEP mon,WED-FRI/2,7"])
def test_what_cron_and_dagster_agree_on_is_accepted(cron):
    assert ScheduleSettings(cron=cron).cron == cron


def test_a_time_that_the_clock_skips_or_repeats_comes_once():
    for day, came in (((2026, 3, 29), "03:00:00+02:00"), ((2026, 10, 25), "02:30:00+01:00")):
        midnight = datetime(*day, tzinfo=ZoneInfo("Europe/Berlin"))
        first, second = islice(dagster_times("30 2 * * *", midnight, "Europe/Berlin"), 2)
        assert first.isoformat().endswith(f"T{came}") and second.day == midnight.day + 1


def dagster_times(cron: str, start: datetime, zone: str = "UTC") -> Iterator[datetime]:
    return schedule_execution_time_iterator(start.timestamp(), cron, zone, ascending=True)
