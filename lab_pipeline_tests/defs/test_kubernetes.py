"""Pods of steps as dagster-k8s renders them, without a node to run them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.execution.api import create_execution_plan
from dagster._core.execution.context_creation_job import (
    PlanOrchestrationContextManager,
    orchestration_context_event_generator,
)
from dagster._core.executor.step_delegating import StepHandlerContext
from dagster._grpc.types import ExecuteStepArgs
from dagster_postgres.utils import pg_url_from_config
from pydantic import ValidationError
from sqlalchemy.engine import make_url
from typer.testing import CliRunner

from lab_pipeline.cli.app import app
from lab_pipeline.config.deployment import KubernetesSettings
from lab_pipeline.config.settings import Settings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.processes import python_module
from lab_pipeline.defs.checkpoints.assets import run_trainer
from lab_pipeline.defs.kubernetes import POD_TAG, executor, lost_pod_retries
from lab_pipeline.defs.private_dagster import DagsterPipesExecutionError
from lab_pipeline.defs.train_job import train_job
from lab_pipeline.runtime.run_worker import JOBS
from lab_pipeline_tests.cluster import cluster
from lab_pipeline_tests.code_location import code_location

GPU_STEPS = {"knowledge_checkpoint", "skills_checkpoint", "evaluation_report"}
TEACHING = {"leaf_instructions", "exam_questions"}
"""Steps in which an embedded model teaches."""
ENDPOINT = {"kind": "endpoint", "url": "http://127.0.0.1:9", "model": "none"}
FROM_LAUNCHER = {
    "service_account_name": "dagster",
    "env_vars": ["LAB_DEPLOYMENT=k8s", "LAB_HOME=/lab/home"],
    "env_secrets": ["teacher-key"],
    "volumes": [{"name": "lab", "persistentVolumeClaim": {"claimName": "lab"}}],
    "volume_mounts": [{"name": "lab", "mountPath": "/lab"}],
}


def rendered(folder: Path, **settings: Any) -> dict[str, Any]:
    """The Kubernetes jobs of all steps that have a pod of their own, by step, under these settings."""
    home = folder / "home"
    home.mkdir(parents=True)
    (home / "settings.yaml").write_text(yaml.safe_dump({"taxonomy": {"path": "."}, **settings}))
    with pytest.MonkeyPatch.context() as patch, cluster(folder, folder) as opened:
        opened.nodes_free = False
        patch.setenv("LAB_HOME", str(home))
        patch.setenv("LAB_DEPLOYMENT", "k8s")
        patch.delenv("HOSTNAME", raising=False)
        launcher = opened.launcher()
        launcher["config"] |= FROM_LAUNCHER
        with code_location(), dg.instance_for_test(overrides={"run_launcher": launcher}, temp_dir=str(folder)) as instance:
            for job in JOBS.values():
                launch_big_steps(instance, dg.reconstructable(job))
        return {pod.job["metadata"]["labels"]["dagster/op"]: pod.job for pod in opened.ever}


def launch_big_steps(instance: dg.DagsterInstance, job: Any) -> None:
    plan = create_execution_plan(job)
    run = instance.create_run_for_job(job.get_definition(), job_code_origin=job.get_python_origin())
    manager = PlanOrchestrationContextManager(orchestration_context_event_generator, job, plan, {}, run, instance)
    list(manager.prepare_context())
    context = manager.get_context()
    for step in plan.get_steps_to_execute_in_topo_order():
        if POD_TAG in step.tags:
            arguments = ExecuteStepArgs(job.get_python_origin(), run.run_id, [step.key], instance.get_ref())
            list(context.executor._step_handler.launch_step(StepHandlerContext(instance, context, [step], arguments, run)))


@pytest.fixture(scope="module")
def pods(tmp_path_factory) -> Iterator[dict[str, Any]]:
    """Those under the settings that a home starts with."""
    yield rendered(tmp_path_factory.mktemp("k8s"))


def pod(job: Any) -> Any:
    return job["spec"]["template"]["spec"]


def container(job: Any) -> Any:
    (only,) = pod(job)["containers"]
    return only


def test_training_evaluation_and_generation_by_an_embedded_teacher_have_pods_with_a_gpu(pods):
    assert pods.keys() == GPU_STEPS | TEACHING
    for job in pods.values():
        assert container(job)["resources"] == {
            "requests": {"cpu": "4", "memory": "32Gi"},
            "limits": {"memory": "32Gi", "nvidia.com/gpu": "1"},
        }


def test_what_the_run_launcher_gives_reaches_every_pod(pods):
    for step, job in pods.items():
        environment = {variable["name"]: variable.get("value") for variable in container(job)["env"]}
        assert environment["LAB_DEPLOYMENT"] == "k8s" and environment["LAB_HOME"] == "/lab/home", step
        assert {"secretRef": {"name": "teacher-key"}} in container(job)["envFrom"], step
        assert container(job)["image"] == "example.org/lab:1", step
        assert ("lab", "/lab") in [(mount["name"], mount["mountPath"]) for mount in container(job)["volumeMounts"]], step
        assert {"name": "lab", "persistentVolumeClaim": {"claimName": "lab"}} in pod(job)["volumes"], step
        assert pod(job)["serviceAccountName"] == "dagster", step


def test_a_pod_has_shared_memory_a_toleration_time_to_save_and_an_end(pods):
    for job in pods.values():
        assert ("shm", "/dev/shm") in [(mount["name"], mount["mountPath"]) for mount in container(job)["volumeMounts"]]
        assert {"name": "shm", "emptyDir": {"medium": "Memory"}} in pod(job)["volumes"]
        assert [toleration["key"] for toleration in pod(job)["tolerations"]] == ["nvidia.com/gpu"]
        assert pod(job)["terminationGracePeriodSeconds"] == 300
        assert job["spec"]["activeDeadlineSeconds"] == 86400 and job["spec"]["backoffLimit"] == 0


def test_the_settings_choose_sizes_and_nodes_by_kind_of_step(tmp_path):
    k8s = {
        "training": {
            "cpu": "500m",
            "memory": "80Gi",
            "gpus": 8,
            "node_selector": {"zone": "a"},
            "tolerations": [{"key": "spot", "operator": "Equal", "value": "yes"}],
        },
        "evaluation": {"gpus": 0},
        "queue": "gpus",
        "save_seconds": 60,
        "deadline_hours": 1,
    }
    pods = rendered(tmp_path, teacher=ENDPOINT, k8s=k8s)
    assert pods.keys() == GPU_STEPS  # an endpoint teaches: its refreshes run in their run's pod
    training, evaluation = pods["skills_checkpoint"], pods["evaluation_report"]
    assert container(training)["resources"]["limits"] == {"memory": "80Gi", "nvidia.com/gpu": "8"}
    assert pod(training)["nodeSelector"] == {"zone": "a"}
    assert {"key": "spot", "operator": "Equal", "value": "yes"} in pod(training)["tolerations"]
    assert pod(training)["terminationGracePeriodSeconds"] == 60 and training["spec"]["activeDeadlineSeconds"] == 3600
    assert training["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert container(evaluation)["resources"]["limits"] == {"memory": "32Gi"} and not pod(evaluation).get("tolerations")
    assert "kueue.x-k8s.io/queue-name" not in evaluation["metadata"]["labels"]


SEVERAL = {"training": {"nodes": 2, "gpus": 8, "node_selector": {"gpu": "h100"}}, "queue": "gpus"}


def test_training_on_several_nodes_is_watched_by_the_runs_pod(tmp_path, monkeypatch):
    assert rendered(tmp_path, teacher=ENDPOINT, k8s=SEVERAL).keys() == {"evaluation_report"}
    settings = Settings(taxonomy={"path": "."}, k8s=SEVERAL)  # type: ignore[arg-type]
    monkeypatch.setenv("LAB_DEPLOYMENT", "k8s")
    assert lost_pod_retries("training", settings) is None  # or a cancelled run would train again


def test_a_train_job_is_valid_and_asks_for_what_the_settings_say():
    command = python_module("lab_pipeline.training", "/lab/spec.json")
    job = train_job("lab-1", command, {"A": "b"}, KubernetesSettings.model_validate(SEVERAL))
    spec, trainer = job["spec"], job["spec"]["trainer"]
    assert job["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "gpus"}
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 8)
    assert trainer["resourcesPerNode"]["limits"]["nvidia.com/gpu"] == "8"
    assert trainer["command"] == ["torchrun", "-m", "lab_pipeline.training", "/lab/spec.json"]
    models = pytest.importorskip("kubeflow_trainer_api.models", reason="no kubeflow-trainer-api: pip install it")
    assert models.TrainerV1alpha1TrainJob.from_dict(job).to_dict() == job  # it keeps no field that it does not know
    (patch,) = spec["runtimePatches"]
    (node,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    assert node["template"]["spec"]["template"]["spec"]["nodeSelector"] == {"gpu": "h100"}


def test_big_steps_are_tried_again_on_a_cluster_only(monkeypatch):
    def retried() -> dict[str, int]:
        with code_location() as module:
            jobs = [module.defs.resolve_job_def(name) for name in JOBS]
        ops = {op.name: op.definition.retry_policy for job in jobs for op in job.graph.nodes}
        return {name: policy.max_retries for name, policy in ops.items() if policy}

    monkeypatch.setenv("LAB_DEPLOYMENT", "k8s")
    assert retried() == dict.fromkeys(GPU_STEPS | TEACHING, 3)
    monkeypatch.setenv("LAB_DEPLOYMENT", "local")
    assert retried() == {}


def test_a_training_that_was_told_to_end_is_tried_again_where_a_pod_can_be_replaced(tmp_path, monkeypatch):
    def interrupted(**named: Any) -> None:
        raise DagsterPipesExecutionError("External execution process failed with code 75")

    trainer: Any = SimpleNamespace(run=interrupted)
    with pytest.raises(LabError, match="was interrupted and saved its state"):
        run_trainer(None, trainer, tmp_path / "spec.json")
    monkeypatch.setenv("DAGSTER_RUN_STEP_KEY", "skills_checkpoint")
    with pytest.raises(DagsterPipesExecutionError):
        run_trainer(None, trainer, tmp_path / "spec.json")


@pytest.mark.parametrize(
    "wrong",
    [
        {"training": {"memory": "lots"}},
        {"training": {"cpu": "-1"}},
        {"training": {"node_selector": {"zone": "a b"}}},
        {"training": {"node_selector": {"": "a"}}},
        {"training": {"tolerations": [{"key": "spot", "effect": "Never"}]}},
        {"trainings": {}},
        {"queue": "a/b"},
        {"save_seconds": 5},
        {"training": {"nodes": 0}},
        {"evaluation": {"nodes": 2}},
    ],
)
def test_what_is_no_pod_is_refused(wrong):
    with pytest.raises(ValidationError):
        KubernetesSettings.model_validate(wrong)


@pytest.mark.parametrize("deployment", [None, "", "local"])
def test_the_default_is_this_machine(monkeypatch, deployment):
    monkeypatch.delenv("LAB_DEPLOYMENT", raising=False)
    if deployment is not None:
        monkeypatch.setenv("LAB_DEPLOYMENT", deployment)
    assert executor() is dg.in_process_executor


def test_another_deployment_is_refused(monkeypatch):
    monkeypatch.setenv("LAB_DEPLOYMENT", "kubernetes")
    with pytest.raises(LabError, match="LAB_DEPLOYMENT: expected 'local' or 'k8s', found 'kubernetes'"):
        executor()


@pytest.mark.parametrize(("deployment", "said"), [("k8s", "cluster's Dagster UI"), ("mars", "expected 'local' or 'k8s'")])
@pytest.mark.parametrize("command", ["retune", "ui"])
def test_the_command_line_runs_nothing_for_a_cluster(tmp_path, monkeypatch, deployment, said, command):
    monkeypatch.setenv("LAB_DEPLOYMENT", deployment)
    done = CliRunner().invoke(app, [command, "--home", str(tmp_path / "home")])
    assert isinstance(done.exception, LabError) and said in str(done.exception)
    assert not (tmp_path / "home").exists()


def test_the_database_of_an_instance_is_reached_by_the_driver_that_is_installed():
    db = {"username": "lab", "password": "secret", "hostname": "postgres", "db_name": "dagster"}
    dialect = make_url(pg_url_from_config({"postgres_db": db})).get_dialect()
    assert (dialect.name, dialect.driver) == ("postgresql", "psycopg2")
    dialect.import_dbapi()
