#!/usr/bin/env bash
# A cron field with a range of one value, such as `23-23` for the hour, is valid to Dagster and means "every": a schedule that
# was meant to run once a night runs every hour. The same holds for day and weekday, and for `23/3`. cronsim reads them right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet dagster==1.13.27 cronsim==2.8
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from datetime import UTC, datetime
from itertools import islice

import dagster
from cronsim import CronSim
from dagster._utils.schedules import cron_string_iterator, is_valid_cron_schedule  # what its daemon ticks by

START = datetime(2026, 1, 1, tzinfo=UTC)
print("dagster", dagster.__version__)
same = []
for cron in ("0 23-23 * * *", "0 2 5-5 * *", "0 2 * * 3-3", "0 23 * * *", "0 2 5 * *", "0 2 * * 3"):
    assert is_valid_cron_schedule(cron)
    ticks = [tick.strftime("%d %b %H:%M") for tick in islice(cron_string_iterator(START.timestamp(), cron, "UTC"), 4)]
    meant = [tick.strftime("%d %b %H:%M") for tick in islice(CronSim(cron, START), 4)]
    print(f"{cron:<14} dagster: {', '.join(ticks)}; cronsim: {', '.join(meant)}")
    same.append(ticks == meant)
assert same == [False, False, False, True, True, True], "behaviour changed"
PYTHON
