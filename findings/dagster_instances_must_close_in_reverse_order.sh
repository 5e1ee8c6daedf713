#!/usr/bin/env bash
# Two Dagster instances that are closed in the order in which they were opened, as generators (pytest's fixtures, say) are when they
# are collected, leave the process with the first one as its current instance, though it is closed and gone. From then on each
# `materialize` fails with a DagsterInvariantViolationError that names neither. Closed in reverse order, they leave nothing behind.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet dagster==1.13.27
cd "$folder"
DAGSTER_DISABLE_TELEMETRY=1 "$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null
import gc
import tempfile

import dagster as dg

print("dagster", dg.__version__)


@dg.asset
def one() -> int:
    return 1


def instance():
    with tempfile.TemporaryDirectory() as folder, dg.DagsterInstance.local_temp(folder) as opened:
        yield opened


def outcome(in_reverse):
    opened = [instance(), instance()]
    for each in opened:
        next(each)
    for each in reversed(opened) if in_reverse else opened:
        each.close()
    del each, opened
    gc.collect()
    try:
        return "success" if dg.materialize([one]).success else "failure"
    except dg.DagsterInvariantViolationError as error:
        return f"{type(error).__name__}: {error}"


seen = {"last opened, first closed": outcome(True), "first opened, first closed": outcome(False)}
for order, said in seen.items():
    print(f"{order}: {said}")
assert list(seen.values()) == [
    "success",
    "DagsterInvariantViolationError: Attempted to resolve undefined DagsterInstance weakref.",
], "behaviour changed"
PYTHON
