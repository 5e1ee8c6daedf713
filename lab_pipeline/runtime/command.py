"""Run a retune from the command line: run the UI's jobs on the UI's Dagster instance, and follow them in its event log."""

import logging
import os
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dagster as dg
import psutil
from filelock import FileLock, Timeout

from lab_pipeline.config.settings import load_settings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.machine import full_disk
from lab_pipeline.core.processes import python_module
from lab_pipeline.core.progress import Say
from lab_pipeline.defs.notifications import failure_reason, is_of_leaves
from lab_pipeline.defs.partitions import ranges
from lab_pipeline.reports.status import HomeStatus, leaf_summary, summary
from lab_pipeline.runtime.reaping import reap_dead_runs
from lab_pipeline.runtime.run_worker import LAUNCH_TAG

_POLL_SECONDS = 0.5


class RunFailed(LabError):
    """A job's run failed or did not start; the message says why, and names the run, if there is one, and its log file."""


def retune(home: Home, say: Say) -> dict[str, Any]:
    """Take a snapshot, refresh stale leaves, run the job `retune` if anything changed, and return a summary of the result.

    The summary is that of `reports.status.summary`. Runs killed earlier are first marked as failed. Failed leaves are no error.

    Raises:
        LabError: another retune is running on this home, or no leaf has a row to train on.
        RunFailed: a run did not start, or failed not only because leaves failed.
    """
    settings = load_settings(home.settings_file)
    started = time.monotonic()
    seconds: dict[str, float] = {}
    try:
        with FileLock(home.root / "retune.lock", timeout=0), _peak_rss() as peak, dg.DagsterInstance.get() as instance:
            reap_dead_runs(instance, say)
            run_job(instance, home, "snapshot_taxonomy", say, seconds)
            stale = HomeStatus.of(home, settings).stale
            for first, last in ranges(instance, stale):
                run_job(instance, home, "refresh_leaves", say, seconds, [first, last], leaves_may_fail=True)
            status = HomeStatus.of(home, settings)
            steps = 0
            if not status.trainable:
                raise LabError(_nothing_to_train_on(home, status))
            if status.unchanged:
                say("nothing changed since the last evaluated candidate")
            else:
                run_id = run_job(instance, home, "retune", say, seconds)
                steps = _training_steps(instance, run_id)
            seconds["total"] = time.monotonic() - started
            return summary(home, status, set(stale), steps, seconds, peak[0])
    except Timeout:
        raise LabError(f"{home.root}: another retune is running on this home; wait for it to end") from None


def run_job(
    instance: dg.DagsterInstance,
    home: Home,
    job: str,
    say: Say,
    seconds: dict[str, float],
    partitions: list[str] | None = None,
    leaves_may_fail: bool = False,
) -> str:
    """Run a job in its own process, pass its events on to `say`, and return the run's id.

    The process's output goes to a file in the home's `logs/`. On Ctrl-C, wait until the process has saved its work and ended.

    Args:
        seconds: durations by the name of the step, to which those of this run's steps are added.
        partitions: first and last leaf partition of the range to run.
        leaves_may_fail: do not raise an error if the run failed only because leaves failed.

    Raises:
        RunFailed: the run did not start, or failed.
    """
    launch = uuid.uuid4().hex
    log = home.root / "logs" / f"{time.strftime('%Y%m%d-%H%M%S')}-{job}-{launch[:8]}.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("wb") as output:
        worker = subprocess.Popen(
            python_module("lab_pipeline.runtime.run_worker", job, launch, *(partitions or [])),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    follower = _Follower(instance, launch, say)
    try:
        while worker.poll() is None:
            time.sleep(_POLL_SECONDS)
            follower.catch_up()
    except KeyboardInterrupt:
        worker.wait()  # Ctrl-C also reached the worker, which saves its work and ends
        raise
    follower.catch_up()
    if follower.run_id is None:
        last_lines = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
        raise RunFailed(f"the job {job} did not start; see {log}\n{last_lines}")
    for step in instance.get_run_step_stats(follower.run_id):
        if step.start_time and step.end_time:
            seconds[step.step_key] = round(seconds.get(step.step_key, 0) + step.end_time - step.start_time, 1)
    if worker.returncode and not (leaves_may_fail and follower.only_leaves_failed):
        why = full_disk(home.root) or follower.failure or "its process was killed"
        raise RunFailed(f"the job {job} failed: {why}; see run {follower.run_id} in the UI, and {log}")
    return follower.run_id


@dataclass
class _Follower:
    """Follows the run with the tag `launch`: `catch_up` tells `say` new messages, steps begun or failed, and failed checks."""

    instance: dg.DagsterInstance
    launch: str
    say: Say
    run_id: str | None = None
    cursor: str | None = None
    failure: str | None = None
    """First line of the reason why the last failed step failed; None if no step failed."""
    only_leaves_failed: bool = False
    """True if the last failed step failed only because leaves failed."""

    def catch_up(self) -> None:
        if self.run_id is None:
            runs = self.instance.get_runs(dg.RunsFilter(tags={LAUNCH_TAG: self.launch}), limit=1)
            if not runs:
                return
            self.run_id = runs[0].run_id
        while True:
            page = self.instance.get_records_for_run(self.run_id, cursor=self.cursor)
            for record in page.records:
                self._say(record.event_log_entry)
            self.cursor = page.cursor
            if not page.has_more:
                return

    def _say(self, entry: dg.EventLogEntry) -> None:
        event = entry.dagster_event
        if event is None and entry.user_message.startswith("[pipes]"):
            return
        if event is None:
            is_brief = entry.level in (logging.DEBUG, logging.INFO, logging.WARNING)
            self.say(entry.user_message.split("\n")[0] if is_brief else entry.user_message)
        elif event.event_type == dg.DagsterEventType.STEP_START and not (event.step_key or "").endswith("expectations"):
            self.say(f"[{event.step_key}]")
        elif event.event_type == dg.DagsterEventType.STEP_FAILURE:
            error, reason = event.step_failure_data.error, failure_reason(event)
            with_traceback = error and not event.step_failure_data.user_failure_data  # a defect, not an error people can fix
            self.say(f"[{event.step_key}] failed: {error.to_string() if error and with_traceback else reason}")
            self.failure, self.only_leaves_failed = reason.split("\n")[0], is_of_leaves(event)
        elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            if not check.passed:
                self.say(f"check {check.check_name} of {check.asset_key.to_user_string()} failed ({check.severity.value})")


def _nothing_to_train_on(home: Home, status: HomeStatus) -> str:
    leaves = leaf_summary(home, status.snapshot, status.plans, set())
    reasons = [f"  {leaf}: {row['status']}: {'; '.join(row['problems']) or 'no row was kept'}" for leaf, row in leaves.items()]
    return "no leaf has a row to train on:\n" + "\n".join(reasons)


def _training_steps(instance: dg.DagsterInstance, run_id: str) -> int:
    steps = 0
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
        materialization = entry.asset_materialization
        if materialization and "training_steps" in materialization.metadata:
            steps += int(materialization.metadata["training_steps"].value)  # type: ignore[arg-type]
    return steps


@contextmanager
def _peak_rss() -> Iterator[list[int]]:
    """Yield a list with one item: the highest memory so far of this process and its descendants together, in MiB.

    The memory is the sum of their resident sizes, sampled every `_POLL_SECONDS` until the context ends.
    """
    peak = [0]
    ended = threading.Event()

    def watch() -> None:
        me = psutil.Process(os.getpid())
        while not ended.wait(_POLL_SECONDS):
            total = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            peak[0] = max(peak[0], total // 2**20)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()
