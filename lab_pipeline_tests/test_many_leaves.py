"""Bounds on what the pipeline itself costs with 300 leaves; `benchmarks/leaves.py` measures and says what is counted."""

import json
import subprocess
import sys

import pytest

from lab_pipeline.core.home import PROJECT


@pytest.mark.long
def test_three_hundred_leaves_cost_little_to_import_and_next_to_nothing_to_watch():
    done = subprocess.run([sys.executable, "benchmarks/leaves.py", "300"], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    measured = json.loads(done.stdout.splitlines()[-1])
    assert measured["leaves"] == 300 and measured["left_behind"] == 0
    assert measured["seconds_a_leaf"] <= 0.5, measured  # on two cores that nobody else uses
    assert max(measured["tick_ms"].values()) < 300, measured
    assert measured["growth_mib"] < 5, measured
