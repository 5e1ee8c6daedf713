"""What `lab-pipeline preflight` finds, in pods that are threads, on a cluster that is a process."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pytest
import yaml
from typer.testing import CliRunner

from lab_pipeline.cli.app import app
from lab_pipeline.core.errors import LabError
from lab_pipeline.reports.doctor import HealthCheck
from lab_pipeline.runtime import preflight as module
from lab_pipeline.runtime.preflight import preflight
from lab_pipeline_tests.cluster import Cluster, cluster
from lab_pipeline_tests.lab import TestLab, lab
from lab_pipeline_tests.postgres import postgres


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[TestLab, Cluster]]:
    (tmp_path / "taxonomy").mkdir()
    with (
        lab(tmp_path, tmp_path / "taxonomy", tmp_path, monkeypatch) as home,
        cluster(tmp_path, home.home.dagster) as running,
    ):
        (home.home.dagster / "dagster.yaml").write_text(yaml.safe_dump({"run_launcher": running.launcher()}))
        yield home, running


def findings(opened: tuple[TestLab, Cluster]) -> dict[str, HealthCheck]:
    return {finding.name: finding for finding in preflight(opened[0].home.root)}


def together(root: Path, pods: int = 2) -> list[str]:
    """What each of these pods finds out about the locks of the volume."""

    def outcome(pod: int) -> str:
        try:
            return module._locks_between_pods(root, pod, pods)
        except LabError as error:
            return str(error)

    with ThreadPoolExecutor(pods) as threads:
        return list(threads.map(outcome, range(pods)))


def test_pods_that_share_a_volume_find_its_locks_to_hold_every_time(tmp_path):
    for pods in (2, 3, 2):
        assert together(tmp_path, pods) == [f"{tmp_path} is the same in {pods} pods, and flock holds between them"] * pods


def test_a_lock_that_holds_on_one_node_only_is_found_out(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_is_refused", lambda path: False)
    assert all("flock does not hold between pods" in said for said in together(tmp_path))


def test_a_pod_with_another_volume_waits_in_vain(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.3)
    with pytest.raises(LabError, match="waited in vain for 1 other pods; is the same volume mounted at this path in all pods"):
        module._locks_between_pods(tmp_path, 0, 2)


def test_the_database_must_be_one_that_pods_can_share(opened):
    assert "PostgreSQL" in findings(opened)["database"].message and not findings(opened)["database"].passed


def test_a_postgresql_database_is_opened(opened):
    with postgres() as storage:
        configuration = {"run_launcher": opened[1].launcher(), "storage": storage}
        (opened[0].home.dagster / "dagster.yaml").write_text(yaml.safe_dump(configuration))
        found = findings(opened)
    assert found["database"].message == "PostgresRunStorage, 0 runs" and found["pools"].message == "gpu: 1, teacher: 1"


def test_pools_get_a_limit_and_keep_the_one_they_have(opened):
    with dg.DagsterInstance.get() as instance:
        instance.event_log_storage.set_concurrency_slots("gpu", 4)
    assert findings(opened)["pools"].message == "gpu: 4, teacher: 1"
    with dg.DagsterInstance.get() as instance:
        assert {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits()} == {"gpu": 4, "teacher": 1}


def test_missing_rights_are_named(opened):
    assert findings(opened)["rights"].passed
    opened[1].denied = {"delete"}
    assert (
        "may not: delete jobs, delete pods, delete trainjobs; apply deploy/kubernetes/access.yaml"
        in findings(opened)["rights"].message
    )


def test_a_gpu_is_wanted_only_where_the_settings_ask_for_one(opened, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "no GPU is visible" in findings(opened)["GPU"].message
    opened[0].set(k8s={kind: {"gpus": 0} for kind in ("training", "evaluation", "generation")})
    assert findings(opened)["GPU"].passed


def test_an_instance_that_cannot_be_opened_and_wrong_settings_are_findings(opened):
    (opened[0].home.dagster / "dagster.yaml").write_text("storage: {postgres: {postgres_url: {env: NOT_SET}}}\n")
    opened[0].home.settings_file.write_text("seed: 1\n")
    found = findings(opened)
    assert "NOT_SET" in found["database"].message and "taxonomy" in found["settings"].message


def test_the_command_prints_every_finding_and_fails_if_one_does(opened):
    done = CliRunner().invoke(app, ["preflight"])
    assert done.exit_code == 1
    assert "ok   volume, writing:" in done.output and "FIX  database:" in done.output and "teacher: " in done.output
