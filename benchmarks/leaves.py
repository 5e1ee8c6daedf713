"""What does the pipeline itself cost when there are many leaves?

A taxonomy of small skill leaves (48 teacher calls each) and a stub teacher that answers at once, in a process of its own; so
what is left is overhead: files, journal, HTTP, Dagster. Measured on a fresh home:

- `seconds_a_leaf`: the first import, which is the runs of `snapshot_taxonomy` and `refresh_leaves` as the command line starts
  them, by wall time, starts of their processes included, over the number of leaves; `cpu_seconds_a_leaf` is the same in
  processor time, which neighbours on the machine disturb less; `steps` are the steps' seconds.
- `tick_ms`: a tick of each sensor when nothing changed, in a process that has loaded the definitions; median of 300.
- `growth_mib`: what that process's resident size gained between the 50th round of ticks and the 300th.

    python -P benchmarks/leaves.py [LEAVES]
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import yaml

from lab_pipeline.runtime.launcher import prepare
from lab_pipeline_tests.builders import write_skill
from lab_pipeline_tests.lab import obliging
from lab_pipeline_tests.stub_endpoint import StubEndpoint

ROUNDS = 300
WARM_UP = 50


def main(leaves: int) -> None:
    with tempfile.TemporaryDirectory() as folder, teacher() as (url, calls):
        home_folder, taxonomy = Path(folder) / "home", Path(folder) / "taxonomy"
        for number in range(leaves):
            write_skill(taxonomy, f"compositional_skills/part_{number % 10}/skill_{number:04}", seeds=5)
        home_folder.mkdir()
        (home_folder / "settings.yaml").write_text(
            yaml.safe_dump(
                {
                    "taxonomy": {"path": str(taxonomy)},
                    "teacher": {"kind": "endpoint", "url": url, "model": "stub"},
                    "flows": {kind: f"simple_{kind}" for kind in ("knowledge", "grounded_skill", "freeform_skill")},
                }
            )
        )
        home = prepare(home_folder, None)

        import dagster as dg  # after `prepare`, because the definitions read the home's settings

        from lab_pipeline.config.settings import load_settings
        from lab_pipeline.defs.automation import stale_leaves, taxonomy_changes, waiting_retunes
        from lab_pipeline.defs.partitions import ranges
        from lab_pipeline.defs.resources import Lab
        from lab_pipeline.reports.status import HomeStatus
        from lab_pipeline.runtime.command import run_job

        with dg.DagsterInstance.get() as instance:
            seconds: dict[str, float] = {}
            started = time.monotonic()
            run_job(instance, home, "snapshot_taxonomy", say, seconds)
            stale = HomeStatus.of(home, load_settings(home.settings_file)).stale
            ((first, last),) = ranges(instance, stale)
            run_job(instance, home, "refresh_leaves", say, seconds, [first, last])
            wall = time.monotonic() - started
            children = resource.getrusage(resource.RUSAGE_CHILDREN)
            still_stale = HomeStatus.of(home, load_settings(home.settings_file)).stale

            resources = {"lab": Lab(root=str(home.root))}
            ticks = {sensor.name: sensor for sensor in (taxonomy_changes, stale_leaves, waiting_retunes)}
            taken: dict[str, list[float]] = {name: [] for name in ticks}
            resident = []
            for _ in range(ROUNDS):
                for name, sensor in ticks.items():
                    started = time.monotonic()
                    tick = sensor(dg.build_sensor_context(instance=instance, resources=resources))
                    taken[name].append(time.monotonic() - started)
                    assert isinstance(tick, dg.SkipReason), tick
                resident.append(psutil.Process().memory_info().rss / 2**20)
            print(
                json.dumps(
                    {
                        "leaves": leaves,
                        "teacher_calls": calls(),
                        "seconds_a_leaf": round(wall / leaves, 3),
                        "cpu_seconds_a_leaf": round((children.ru_utime + children.ru_stime) / leaves, 3),
                        "steps": seconds,
                        "left_behind": len(still_stale),
                        "tick_ms": {name: round(1000 * statistics.median(each), 1) for name, each in taken.items()},
                        "growth_mib": round(resident[-1] - resident[WARM_UP - 1], 1),
                    }
                )
            )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def teacher() -> Iterator[tuple[str, Callable[[], int]]]:
    """Address of a stub teacher in a process of its own, and how many requests it got."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,))
    process.start()

    def calls() -> int:
        ours.send("calls")
        return int(ours.recv())

    try:
        yield ours.recv(), calls
    finally:
        process.kill()
        process.join()


def _serve(pipe: Connection) -> None:
    with StubEndpoint(obliging) as stub:
        pipe.send(stub.url)
        while pipe.recv():
            pipe.send(len(stub.requests))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
