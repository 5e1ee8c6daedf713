"""Step pods as `k8s_job_executor` itself renders them, without a cluster: its API client is a stand-in that keeps them."""

import importlib
import json
from typing import Any

import dagster as dg
import pytest
from dagster._core.execution.api import create_execution_plan
from dagster._core.execution.context_creation_job import (
    PlanOrchestrationContextManager,
    orchestration_context_event_generator,
)
from dagster._core.executor.step_delegating import StepHandlerContext
from dagster._grpc.types import ExecuteStepArgs
from dagster_k8s.client import DagsterKubernetesClient
from dagster_k8s.job import get_user_defined_k8s_config
from dagster_postgres.utils import pg_url_from_config
from sqlalchemy.engine import make_url
from typer.testing import CliRunner

import lab_pipeline.definitions
from lab_pipeline.cli.app import app
from lab_pipeline.core.errors import LabError
from lab_pipeline.defs.kubernetes import executor, gpu_op_tags
from lab_pipeline.runtime.run_worker import JOBS

GPU_STEPS = {"knowledge_checkpoint", "skills_checkpoint", "evaluation_report"}

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: none
clusters: [{name: none, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: none, user: {}}]
contexts: [{name: none, context: {cluster: none, user: none}}]
"""


@pytest.fixture(scope="module")
def pods(tmp_path_factory) -> dict[str, Any]:
    """The Kubernetes job of every step of every job, by step."""
    folder = tmp_path_factory.mktemp("k8s")
    (folder / "kubeconfig").write_text(KUBECONFIG)
    launcher = {
        "service_account_name": "dagster",
        "instance_config_map": "dagster-instance",
        "dagster_home": "/opt/dagster/dagster_home",
        "job_image": "example.org/lab:1",
        "load_incluster_config": False,
        "kubeconfig_file": str(folder / "kubeconfig"),
        "env_vars": ["LAB_DEPLOYMENT=k8s", "LAB_HOME=/lab/home"],
        "env_secrets": ["teacher-key"],
        "volumes": [{"name": "lab", "persistentVolumeClaim": {"claimName": "lab"}}],
        "volume_mounts": [{"name": "lab", "mountPath": "/lab"}],
    }
    overrides = {"run_launcher": {"module": "dagster_k8s", "class": "K8sRunLauncher", "config": launcher}}
    rendered: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_DEPLOYMENT", "k8s")
        importlib.reload(lab_pipeline.definitions)

        def create(self: Any, body: Any, namespace: str) -> None:
            rendered[body.metadata.labels["dagster/op"]] = body

        patch.setattr(DagsterKubernetesClient, "create_namespaced_job_with_retries", create)
        with dg.instance_for_test(overrides=overrides, temp_dir=str(folder)) as instance:
            for job in JOBS.values():
                launch_steps(instance, dg.reconstructable(job), str(folder / "kubeconfig"))
    importlib.reload(lab_pipeline.definitions)
    return rendered


def launch_steps(instance: dg.DagsterInstance, job: Any, kubeconfig: str) -> None:
    config = {"execution": {"config": {"load_incluster_config": False, "kubeconfig_file": kubeconfig}}}
    plan = create_execution_plan(job, config)
    run = instance.create_run_for_job(job.get_definition(), run_config=config, job_code_origin=job.get_python_origin())
    manager = PlanOrchestrationContextManager(orchestration_context_event_generator, job, plan, config, run, instance)
    list(manager.prepare_context())
    context = manager.get_context()
    for step in plan.get_steps_to_execute_in_topo_order():
        arguments = ExecuteStepArgs(job.get_python_origin(), run.run_id, [step.key], instance.get_ref())
        list(context.executor._step_handler.launch_step(StepHandlerContext(instance, context, [step], arguments, run)))


def container(job: Any) -> Any:
    (only,) = job.spec.template.spec.containers
    return only


def asks_for_gpu(job: Any) -> bool:
    resources = container(job).resources
    return bool(resources and "nvidia.com/gpu" in (resources.limits or {}))


def test_every_step_is_a_pod_and_training_and_evaluation_alone_ask_for_a_gpu(pods):
    steps = {step for job in JOBS.values() for step in create_execution_plan(job()).step_keys_to_execute}
    assert pods.keys() == steps > GPU_STEPS
    assert {step for step, job in pods.items() if asks_for_gpu(job)} == GPU_STEPS


def test_what_the_run_launcher_gives_reaches_every_pod(pods):
    for step, job in pods.items():
        environment = {variable.name: variable.value for variable in container(job).env}
        assert environment["LAB_DEPLOYMENT"] == "k8s" and environment["LAB_HOME"] == "/lab/home", step
        assert [source.secret_ref.name for source in container(job).env_from if source.secret_ref] == ["teacher-key"], step
        assert container(job).image == "example.org/lab:1", step
        assert ("lab", "/lab") in [(mount.name, mount.mount_path) for mount in container(job).volume_mounts], step
        claims = [volume.persistent_volume_claim for volume in job.spec.template.spec.volumes]
        assert "lab" in [claim.claim_name for claim in claims if claim], step
        assert job.spec.template.spec.service_account_name == "dagster", step


def test_a_gpu_pod_has_shared_memory_a_toleration_and_an_end(pods):
    for step in GPU_STEPS:
        job, pod = pods[step], pods[step].spec.template.spec
        assert container(job).resources.limits == {"nvidia.com/gpu": "1", "memory": "32Gi"}
        assert ("shm", "/dev/shm") in [(mount.name, mount.mount_path) for mount in container(job).volume_mounts]
        assert [volume.empty_dir.medium for volume in pod.volumes if volume.name == "shm"] == ["Memory"]
        assert [toleration.key for toleration in pod.tolerations] == ["nvidia.com/gpu"]
        assert job.spec.active_deadline_seconds == 86400


def test_the_operator_chooses_memory_and_nodes(monkeypatch):
    monkeypatch.setenv("LAB_GPU_MEMORY", "80Gi")
    monkeypatch.setenv("LAB_GPU_NODES", "accelerator=nvidia, zone=a")
    config = get_user_defined_k8s_config({"dagster-k8s/config": json.dumps(gpu_op_tags()["dagster-k8s/config"])})
    assert config.pod_spec_config["node_selector"] == {"accelerator": "nvidia", "zone": "a"}
    assert config.container_config["resources"]["limits"]["memory"] == "80Gi"


@pytest.mark.parametrize("labels", ["accelerator", "accelerator=", "=nvidia", "a=b,c"])
def test_nodes_that_are_no_labels_are_refused(monkeypatch, labels):
    monkeypatch.setenv("LAB_GPU_NODES", labels)
    with pytest.raises(LabError, match="LAB_GPU_NODES: expected key=value"):
        gpu_op_tags()


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
