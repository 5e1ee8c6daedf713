#!/usr/bin/env bash
# dagster-k8s 0.29.27 calls the state of a run "unknown" when the Kubernetes API server cannot be reached, and dagster's run
# monitoring fails every run whose state is neither running nor success. So one look in a second without an API server fails
# all runs, while their pods work on; run retries then start the same work again beside them.
# Nothing listens on the port of the API server here. No cluster is needed to see it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet dagster==1.13.27 dagster-k8s==0.29.27
cat > "$folder/kubeconfig" <<'YAML'
{apiVersion: v1, kind: Config, current-context: away, clusters: [{name: away, cluster: {server: "http://127.0.0.1:9"}}],
 users: [{name: away, user: {}}], contexts: [{name: away, context: {cluster: away, user: away, namespace: default}}]}
YAML
cat > "$folder/look.py" <<'PYTHON'
import logging
import sys
from types import SimpleNamespace

import dagster as dg
from dagster._core.test_utils import instance_for_test
from dagster._daemon.monitoring import execute_run_monitoring_iteration


@dg.op
def work():
    pass


@dg.job
def job():
    work()


launcher = {
    "module": "dagster_k8s",
    "class": "K8sRunLauncher",
    "config": {
        "service_account_name": "dagster",
        "instance_config_map": "dagster",
        "dagster_home": "/tmp",
        "job_image": "image",
        "load_incluster_config": False,
        "kubeconfig_file": sys.argv[1],
    },
}
with instance_for_test(overrides={"run_launcher": launcher, "run_monitoring": {"enabled": True}}) as instance:
    run = instance.create_run_for_job(
        job, status=dg.DagsterRunStatus.STARTED, job_code_origin=dg.reconstructable(job).get_python_origin()
    )
    print("health:", instance.run_launcher.check_run_worker_health(run).status.value)
    context = SimpleNamespace(instance=instance, create_request_context=lambda: None)
    list(execute_run_monitoring_iteration(context, logging.getLogger("daemon")))
    print("after one look:", instance.get_run_by_id(run.run_id).status.value)
PYTHON
seen=$("$folder/venv/bin/python" "$folder/look.py" "$folder/kubeconfig" 2>/dev/null)
echo "$seen"
grep -q "health: UNKNOWN" <<<"$seen"
grep -q "after one look: FAILURE" <<<"$seen"
