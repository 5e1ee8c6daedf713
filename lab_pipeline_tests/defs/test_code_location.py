"""Several labs on one Dagster instance, each in a process of its own, as code locations are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from lab_pipeline_tests.builders import FREEFORM, GROUNDED, write_skill
from lab_pipeline_tests.webhook import webhook

NAMES = """
import importlib, json, os, sys

found = []
for home in sys.argv[1:]:
    os.environ["LAB_HOME"] = home
    for module in [name for name in sys.modules if name.startswith("lab_pipeline.def")]:
        del sys.modules[module]
    defs = importlib.import_module("lab_pipeline.definitions").defs
    repository, graph = defs.get_repository_def(), defs.resolve_asset_graph()
    assets = graph.get_all_asset_keys()
    found.append({
        "assets": sorted(key.to_user_string() for key in assets),
        "parents": sorted({parent.to_user_string() for key in assets for parent in graph.get(key).parent_keys}),
        "checks": sorted(key.asset_key.to_user_string() for key in graph.asset_check_keys),
        "jobs": sorted(name for name in repository.job_names if not name.startswith("__")),
        "sensors": sorted(sensor.name for sensor in repository.sensor_defs),
        "schedules": [schedule.name for schedule in repository.schedule_defs],
        "pools": sorted({pool for key in assets for pool in graph.get(key).pools}),
        "partitions": [importlib.import_module("lab_pipeline.defs.partitions").LEAVES.name],
    })
print(json.dumps(found))
"""

SNAPSHOT = """
import dagster as dg
from lab_pipeline.core.home import default_home
from lab_pipeline.defs.automation import taxonomy_changes
from lab_pipeline.defs.resources import Lab
from lab_pipeline.definitions import defs

job = defs.resolve_job_def(taxonomy_changes.job_name)
with dg.DagsterInstance.get() as instance:
    context = dg.build_sensor_context(instance, resources={"lab": Lab(root=str(default_home()))})
    asked = taxonomy_changes(context)
    assert isinstance(asked, dg.RunRequest), asked
    assert job.execute_in_process(instance=instance).success
    unfinished = instance.create_run_for_job(job)
    instance.report_dagster_event(dg.DagsterEvent("PIPELINE_START", job.name), unfinished.run_id)
    print(taxonomy_changes(context).skip_message)
"""

TICKS = """
import gc, json, sys
from datetime import UTC, datetime

import dagster as dg
import psutil
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

from lab_pipeline.core.home import default_home
from lab_pipeline.definitions import defs
from lab_pipeline.defs.automation import nightly_retune, stale_leaves, taxonomy_changes, waiting_retunes
from lab_pipeline.defs.notifications import crashed_runs
from lab_pipeline.defs.resources import Lab

ROUNDS = int(sys.argv[1])
strangers = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("a stranger's"), "__repository__")
home = str(default_home())


@dg.job
def snapshot_taxonomy():
    pass


with dg.DagsterInstance.get() as instance:
    assert defs.resolve_job_def(taxonomy_changes.job_name).execute_in_process(instance=instance).success
    repository, mib, cursor, asked = defs.get_repository_def(), [], None, []
    for round in range(ROUNDS):
        # the stranger has a job of our job's plain name, whose runs fail or never end, and partitions of its own
        origin, started = RemoteJobOrigin(strangers, "snapshot_taxonomy"), dg.DagsterRunStatus.STARTED
        run = instance.create_run_for_job(snapshot_taxonomy, remote_job_origin=origin, status=started)
        if round % 2:
            instance.report_run_failed(run, "the stranger's run failed")
        instance.add_dynamic_partitions("leaves", [f"stranger-{round}"])
        lab = Lab(root=home)
        for sensor in (taxonomy_changes, stale_leaves, waiting_retunes):
            said = sensor(dg.build_sensor_context(instance, resources={"lab": lab}))
            asked.append([sensor.name, getattr(said, "skip_message", None) or "asks for runs"])
        nightly_retune(dg.build_schedule_context(instance, scheduled_execution_time=datetime.now(UTC), resources={"lab": lab}))
        context = dg.SensorEvaluationContext(
            None, None, None, cursor, None, "__repository__", instance=instance, repository_def=repository,
            resources={"lab": lab}, sensor_name=crashed_runs.name,
            code_location_origin=RegisteredCodeLocationOrigin("lab_pipeline"),
        )
        cursor = crashed_runs.evaluate_tick(context).cursor
        gc.collect()
        mib.append(psutil.Process().memory_info().rss / 2**20)
    partitions = {name: len(instance.get_dynamic_partitions(name)) for name in ("acme_leaves", "beta_leaves", "leaves")}
print(json.dumps({"mib": mib, "asked": asked, "partitions": partitions}))
"""


def lab_home(folder: Path, lab: str | None, leaf: str | None = None) -> Path:
    taxonomy = folder / "taxonomy"
    taxonomy.mkdir(parents=True)
    if leaf:
        write_skill(taxonomy, leaf)
    name = f"lab: {lab}\n" if lab else ""
    (folder / "settings.yaml").write_text(f"taxonomy: {{path: {taxonomy}}}\n{name}")
    return folder


def inside(script: str, *arguments: Path | str, **environment: str) -> str:
    environment = {**os.environ, "LAB_DEPLOYMENT": "", **environment}
    done = subprocess.run([sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def names(tmp_path_factory) -> dict[str | None, dict[str, list[str]]]:
    folder = tmp_path_factory.mktemp("labs")
    labs = (None, "acme", "beta_2")
    return dict(zip(labs, json.loads(inside(NAMES, *(lab_home(folder / str(lab), lab) for lab in labs))), strict=True))


def test_two_labs_share_no_name(names):
    for kind in names["acme"]:
        assert names["acme"][kind] and not set(names["acme"][kind]) & set(names["beta_2"][kind]), kind


def test_a_name_stands_before_all_that_the_instance_knows_by_name(names):
    for kind, found in names["acme"].items():
        separator = "/" if kind in ("assets", "parents", "checks") else "_"
        assert [f"acme{separator}{name}" for name in names[None][kind]] == found, kind


def test_without_a_name_nothing_is_prefixed(names):
    assert names[None]["partitions"] == ["leaves"] and names[None]["pools"] == ["gpu", "teacher"]
    assert "taxonomy_snapshot" in names[None]["assets"] and "nightly_retune" in names[None]["schedules"]


@pytest.mark.long
def test_two_labs_on_one_instance_wait_for_none_of_the_others_runs_and_register_their_own_leaves(tmp_path):
    instance_home = tmp_path / "instance"
    instance_home.mkdir()
    for lab, leaf in (("acme", FREEFORM), ("beta", GROUNDED)):
        home = lab_home(tmp_path / lab, lab, leaf)
        said = inside(SNAPSHOT, LAB_HOME=str(home), DAGSTER_HOME=str(instance_home))
        assert "is taking a snapshot already" in said
    with dg.DagsterInstance.from_config(str(instance_home)) as instance:
        leaves = {lab: instance.get_dynamic_partitions(f"{lab}_leaves") for lab in ("acme", "beta")}
        assert leaves == {"acme": [FREEFORM], "beta": [GROUNDED]} and not instance.get_dynamic_partitions("leaves")
        assert all(instance.get_latest_materialization_event(dg.AssetKey([lab, "taxonomy_snapshot"])) for lab in leaves)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_day_of_ticks_beside_another_lab_and_a_stranger_costs_no_memory(tmp_path):
    """Two hours and more at an interval of 30 s; the stranger starts 250 runs meanwhile, of which half never end."""
    instance_home = tmp_path / "instance"
    instance_home.mkdir()
    with webhook() as hook:
        for lab, leaf, rounds in (("beta", GROUNDED, "2"), ("acme", FREEFORM, "250")):
            home = lab_home(tmp_path / lab, lab, leaf)
            with (home / "settings.yaml").open("a") as file:
                file.write("notifications: {webhook_env: LAB_TEST_WEBHOOK}\n")
            variables = {"LAB_HOME": str(home), "DAGSTER_HOME": str(instance_home), "LAB_TEST_WEBHOOK": hook.url}
            seen = json.loads(inside(TICKS, rounds, **variables))
        assert hook.texts == []  # the stranger's failures are the stranger's to tell
    assert {name for name, _ in seen["asked"]} == {
        f"acme_{name}" for name in ("taxonomy_changes", "stale_leaves", "waiting_retunes")
    }
    assert all("has not changed since" in said for name, said in seen["asked"] if name == "acme_taxonomy_changes")
    assert seen["partitions"] == {"acme_leaves": 1, "beta_leaves": 1, "leaves": 250}
    print(f"memory after 50 rounds {seen['mib'][50]:.1f} MiB, after 250 {seen['mib'][-1]:.1f} MiB")
    assert seen["mib"][-1] - seen["mib"][50] < 5
