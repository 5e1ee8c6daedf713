"""A small Kubernetes API on loopback whose kubelet runs a pod's command as a process: jobs, pods, logs, owners, faults.

It knows as much of Kubernetes as dagster-k8s asks for: jobs of one pod that is never restarted. A pod's process gets the
pod's own variables, on top of those of this process, in place of its image.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

BIN = Path(sys.executable).parent


@dataclass
class Pod:
    """A job and its only pod."""

    job: dict[str, Any]
    log: Path
    created: datetime
    process: subprocess.Popen[bytes] | None = None
    """None while it waits for a node."""
    waiting: dict[str, str] | None = None
    """Why its container does not start."""
    reason: str | None = None
    """Why it was ended from outside, in the cluster's words."""

    @property
    def name(self) -> str:
        return self.job["metadata"]["name"]

    @property
    def code(self) -> int | None:
        return self.process.poll() if self.process else None

    @property
    def phase(self) -> str:
        if self.process is None:
            return "Pending"
        return "Running" if self.code is None else "Failed" if self.code or self.reason else "Succeeded"

    def spec(self) -> dict[str, Any]:
        return self.job["spec"]["template"]["spec"]

    def as_pod(self) -> dict[str, Any]:
        terminated = {"exitCode": self.code, "reason": self.reason or ("Error" if self.code else "Completed")}
        state = {"waiting": self.waiting} if self.waiting else {"terminated": terminated} if self.code is not None else {}
        unschedulable = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/1 nodes have a GPU",
        }
        container = {"name": "dagster", "image": "", "imageID": "", "ready": False, "restartCount": 0, "state": state}
        status = {
            "phase": self.phase,
            "reason": self.reason,
            "conditions": [unschedulable] if self.process is None and not self.waiting else [],
            "containerStatuses": [container],
        }
        labels = {**self.job["spec"]["template"]["metadata"]["labels"], "job-name": self.name}
        uid, created = f"uid-{self.name}", self.created.isoformat()
        metadata = {"name": self.name, "uid": uid, "labels": labels, "creationTimestamp": created}
        return {"metadata": metadata, "spec": self.spec(), "status": status}

    def as_job(self) -> dict[str, Any]:
        count = {"Succeeded": "succeeded", "Failed": "failed"}.get(self.phase, "active")
        return {**self.job, "status": {count: 1}}


@dataclass
class Cluster:
    folder: Path
    instance: Path
    """`DAGSTER_HOME` in every pod: the config map that the chart mounts."""
    url: str = ""
    pods: dict[str, Pod] = field(default_factory=dict)
    ever: list[Pod] = field(default_factory=list)
    """All pods there ever were, in order."""
    train_jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Those of Kubeflow Trainer; each node is a pod."""
    nodes_free: bool = True
    """False = pods stay pending."""
    denied: set[str] = field(default_factory=set)
    """Verbs that no account may use."""
    away: bool = False
    """True = the API server takes connections and drops them."""

    @property
    def kubeconfig(self) -> Path:
        path = self.folder / "kubeconfig"
        context = {"cluster": "stub", "user": "stub", "namespace": "default"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "stub",
            "clusters": [{"name": "stub", "cluster": {"server": self.url}}],
            "users": [{"name": "stub", "user": {}}],
            "contexts": [{"name": "stub", "context": context}],
        }
        path.write_text(yaml.safe_dump(config))
        return path

    def launcher(self) -> dict[str, Any]:
        """The section `run_launcher` of a `dagster.yaml`."""
        config = {
            "service_account_name": "dagster",
            "instance_config_map": "dagster-instance",
            "dagster_home": str(self.instance),
            "job_image": "example.org/lab:1",
            "load_incluster_config": False,
            "kubeconfig_file": str(self.kubeconfig),
            "env_vars": ["LAB_DEPLOYMENT=k8s"],
        }
        return {"module": "lab_pipeline.runtime.cluster_launcher", "class": "ClusterRunLauncher", "config": config}

    def create(self, job: dict[str, Any]) -> None:
        name = job["metadata"]["name"]
        pod = Pod(job, self.folder / f"{name}.log", datetime.now(UTC))
        self.pods[name] = pod
        self.ever.append(pod)
        if self.nodes_free:
            self.start(pod)

    def start(self, pod: Pod) -> None:
        (container,) = pod.spec()["containers"]
        given = {each["name"]: each["value"] for each in container["env"] if "value" in each}
        environment = {**os.environ, **given, "HOSTNAME": pod.name, "DAGSTER_HOME": str(self.instance)}
        command = [*(container.get("command") or []), *container["args"]]
        with pod.log.open("wb") as log:
            pod.process = subprocess.Popen(
                [str(BIN / command[0]) if (BIN / command[0]).exists() else command[0], *command[1:]],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def end(self, pod: Pod, number: signal.Signals, reason: str | None = None) -> None:
        """Send a signal to all processes of a pod."""
        pod.reason = pod.reason or reason
        if pod.process and pod.process.poll() is None:
            os.killpg(pod.process.pid, number) if number == signal.SIGKILL else pod.process.send_signal(number)

    def delete(self, name: str) -> None:
        """Delete a job with its pod, which is told to end, and what it owns."""
        pod = self.pods.pop(name)
        self.end(pod, signal.SIGTERM)
        self.delete_owned(name)

    def delete_owned(self, name: str) -> None:
        for job in [each for each in self.train_jobs.values() if f"uid-{name}" in owners(each)]:
            self.delete_train_job(job["metadata"]["name"])
        for pod in [each for each in self.pods.values() if f"uid-{name}" in owners(each.job)]:
            self.delete(pod.name)

    def create_train_job(self, job: dict[str, Any]) -> None:
        """Start torchrun on each node, with the variables that Kubeflow Trainer's torch plugin sets."""
        name, trainer = job["metadata"]["name"], job["spec"]["trainer"]
        self.train_jobs[name] = job
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for rank in range(trainer["numNodes"]):
            torch = {"PET_NNODES": trainer["numNodes"], "PET_NPROC_PER_NODE": trainer["numProcPerNode"], "PET_NODE_RANK": rank}
            torch |= {"PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": port}
            env = [*trainer["env"], *({"name": key, "value": str(value)} for key, value in torch.items())]
            container = {"name": "node", "command": trainer["command"], "args": [], "env": env}
            template = {"metadata": {"labels": {"node-of": name}}, "spec": {"containers": [container]}}
            metadata = {"name": f"{name}-node-0-{rank}", "labels": {}, "ownerReferences": [{"uid": f"uid-{name}"}]}
            self.create({"metadata": metadata, "spec": {"template": template}})

    def of_train_job(self, name: str) -> list[Pod]:
        return [pod for pod in self.ever if f"uid-{name}" in owners(pod.job)]

    def as_train_job(self, name: str) -> dict[str, Any]:
        phases = {pod.phase for pod in self.of_train_job(name)}
        ended = "Failed" if "Failed" in phases else "Complete" if phases == {"Succeeded"} else None
        condition = {"type": ended, "status": "True", "reason": "JobsEnded", "message": "as its jobs did"}
        return {**self.train_jobs[name], "status": {"conditions": [condition] if ended else []}}

    def delete_train_job(self, name: str) -> None:
        del self.train_jobs[name]
        self.delete_owned(name)

    def of_step(self, step: str) -> list[Pod]:
        """All pods there ever were for a step, in order."""
        return [pod for pod in self.ever if pod.job["metadata"]["labels"].get("dagster/op") == step]

    def older(self, pod: Pod, minutes: float) -> None:
        pod.created -= timedelta(minutes=minutes)


def owners(job: dict[str, Any]) -> list[str]:
    return [owner["uid"] for owner in job["metadata"].get("ownerReferences") or []]


class _Api(BaseHTTPRequestHandler):
    cluster: Cluster

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def answer(self, status: int, body: Any) -> None:
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def parse_request(self) -> bool:
        return not self.cluster.away and super().parse_request()

    def do_POST(self) -> None:
        job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.startswith("/apis/authorization.k8s.io/"):
            verb = job["spec"]["resourceAttributes"]["verb"]
            return self.answer(201, {**job, "status": {"allowed": verb not in self.cluster.denied}})
        if job["kind"] == "TrainJob":
            self.cluster.create_train_job(job)
            return self.answer(201, job)
        if job["metadata"]["name"] in self.cluster.pods:
            return self.answer(409, {"message": "already exists"})
        self.cluster.create(job)
        self.answer(201, job)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        asked = parse_qs(url.query)
        kind, *rest = url.path.split("/default/")[1].split("/")
        selector = (asked.get("labelSelector") or asked.get("fieldSelector") or ["="])[0].partition("=")[2]
        if not rest:
            chosen = [pod for pod in self.cluster.pods.values() if pod.name == selector]
            render = Pod.as_pod if kind == "pods" else Pod.as_job
            return self.answer(200, {"items": [] if kind == "events" else [render(pod) for pod in chosen]})
        if kind == "trainjobs" and rest[0] in self.cluster.train_jobs:
            return self.answer(200, self.cluster.as_train_job(rest[0]))
        pod = self.cluster.pods.get(rest[0])
        if pod is None:
            return self.answer(404, {"message": "not found"})
        if rest[1:] == ["log"]:
            return self.answer(200, pod.log.read_text(errors="replace"))
        self.answer(200, pod.as_job() if kind == "jobs" else pod.as_pod())

    def do_DELETE(self) -> None:
        name = urlsplit(self.path).path.rpartition("/")[2]
        if name in self.cluster.train_jobs:
            self.cluster.delete_train_job(name)
            return self.answer(200, {})
        if not any(pod.name == name for pod in self.cluster.ever):
            return self.answer(404, {"message": "not found"})
        if name in self.cluster.pods:  # else it is being deleted: with its job, or with its owner
            self.cluster.delete(name)
        self.answer(200, {})


@contextmanager
def cluster(folder: Path, instance: Path) -> Iterator[Cluster]:
    """An empty cluster; all processes of its pods are killed at the end."""
    opened = Cluster(folder, instance)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Api", (_Api,), {"cluster": opened}))
    opened.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield opened
    finally:
        server.shutdown()
        server.server_close()
        for pod in opened.ever:
            opened.end(pod, signal.SIGKILL)
            if pod.process:
                pod.process.wait()
