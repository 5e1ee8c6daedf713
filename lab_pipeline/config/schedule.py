"""Define when the nightly retune starts, and refuse expressions that Dagster and cron read differently."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from zoneinfo import available_timezones

from cronsim import CronSim, CronSimError
from pydantic import Field, field_validator

from lab_pipeline.core.validation import Section

_NOT_TO_DAGSTER = re.compile(r"\b\d*L|#|\b0*(\w+)-0*\1\b|\d-[A-Z]|[A-Z]-\d|(?<![\w-])\w+/", re.IGNORECASE)
"""Syntax that Dagster refuses or reads differently from cron: last and n-th days (`L`, `#`), ranges of one value (Dagster
takes `5-5`, and `0-SUN`, for every day), so also ranges from a number to a name, and steps from one number (`7/2`)."""


class ScheduleSettings(Section):
    cron: str = Field(
        "0 2 * * *",
        description="When the nightly retune looks for changes: minute, hour, day, month, weekday, as numbers or English names "
        "(JAN, MON). Months without the day are skipped. If day and weekday are given, either is enough. A time that the clock "
        "skips in spring comes right after the gap; one that it repeats in autumn comes the second time",
    )
    timezone: str = Field("UTC", description="Time zone of the cron, by its IANA name")

    @field_validator("cron")
    @classmethod
    def _is_a_cron(cls, cron: str) -> str:
        if not _is_cron(cron):
            raise ValueError(
                "expected minute, hour, day, month and weekday, as in '0 2 * * 1-5', without what cron and Dagster read "
                "differently ('@daily', last or n-th days, '5-5', '7/2', or '*/2' as day or weekday if both are given), "
                f"found {cron!r:.40}"
            )
        return cron

    @field_validator("timezone")
    @classmethod
    def _is_a_timezone(cls, timezone: str) -> str:
        if timezone not in available_timezones():
            raise ValueError(f"expected an IANA name such as UTC or Europe/Berlin, found {timezone!r:.40}")
        return timezone


def _is_cron(cron: str) -> bool:
    """Tell whether an expression means the same to Dagster and to cron, and has a next time."""
    fields = cron.split()
    if len(fields) != 5 or _NOT_TO_DAGSTER.search(cron):
        return False
    minute, hour, day, month, weekday = fields
    if "*" in day + weekday and "*" not in (day, weekday):
        return False  # with `*/2` and a weekday, cron wants both to match, Dagster either
    try:
        for days in (weekday, "*"):  # no 30 February, even beside a weekday
            CronSim(f"{minute} {hour} {day} {month} {days}", datetime.now(UTC))
    except CronSimError:
        return False
    return True
