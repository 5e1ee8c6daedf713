"""Check on a cluster what only shows there, before a run does: database, shared volume, GPU, models and rights.

`deploy/kubernetes/preflight.yaml` runs it in two pods at once, which meet on the volume and try its lock against each other;
`preflight-gpu.yaml` in one pod with a GPU.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

from lab_pipeline.config.settings import Settings, load_settings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.machine import as_lab_error
from lab_pipeline.core.storage import read_json, write_json
from lab_pipeline.defs.code_location import named
from lab_pipeline.reports.doctor import HealthCheck, examine_model

RIGHTS = {
    ("batch", "jobs", ""): ("create", "delete", "get", "list"),
    ("batch", "jobs", "status"): ("get",),
    ("", "pods", ""): ("delete", "get", "list"),
    ("", "pods", "log"): ("get",),
    ("", "events", ""): ("list",),
    ("trainer.kubeflow.org", "trainjobs", ""): ("create", "delete", "get"),
}
"""What the service account must be allowed to do: verbs by API group, resource and subresource."""

_POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 300


def preflight(root: Path, pod: int = 0, pods: int = 1) -> Iterator[HealthCheck]:
    """Yield a finding for each thing that runs on the cluster need; pools of this lab without a limit get a limit of one.

    Args:
        root: Folder of the home, on the shared volume.
        pod: Which of the `pods` that check together this one is, from 0.
    """
    yield _tried("volume, writing", lambda: _renames_and_links(root))
    if pods > 1:
        yield _tried("volume, locks", lambda: _locks_between_pods(root, pod, pods))
    else:
        yield HealthCheck("volume, locks", True, "not tried: that takes two pods (--pods 2)")
    try:
        settings = load_settings(root / "settings.yaml")
    except LabError as error:
        yield HealthCheck("settings", False, str(error))
    else:
        if pods == 1:  # of several, only as many as there are GPUs would start
            yield _tried("GPU", lambda: _gpu(settings))
        yield examine_model("teacher", settings.teacher, Home(root))
        if settings.judge:
            yield examine_model("judge", settings.judge, Home(root))
    try:
        with dg.DagsterInstance.get() as instance:
            yield _tried("database", lambda: _database(instance))
            yield _tried("pools", lambda: _pools(instance))
            yield _tried("rights", lambda: _rights(instance))
    except Exception as error:  # whatever the driver, the configuration or Kubernetes' client raises is the finding
        yield HealthCheck("database", False, f"the Dagster instance cannot be opened: {type(error).__name__}: {error}")


def _tried(name: str, attempt: Callable[[], str]) -> HealthCheck:
    try:
        return HealthCheck(name, True, attempt())
    except Exception as error:
        return HealthCheck(name, False, str(as_lab_error(error) or f"{type(error).__name__}: {error}"))


def _renames_and_links(root: Path) -> str:
    """Try on the home's volume what the artefacts rely on: replacing a file by renaming, and hard links."""
    folder = root / "preflight"
    folder.mkdir(parents=True, exist_ok=True)
    new, old, link = (folder / f"{name}-{uuid.uuid4().hex}" for name in ("new", "old", "link"))
    try:
        new.write_text("new")
        old.write_text("old")
        os.link(new, link)
        new.rename(old)
        if old.read_text() != "new" or not old.samefile(link):
            raise LabError(
                f"{root}: a renamed file is not the one that was written; use a POSIX file system such as NFS 4 or CephFS"
            )
    finally:
        for path in (new, old, link):
            path.unlink(missing_ok=True)
    return f"{root}: renames and hard links hold"


def _locks_between_pods(root: Path, pod: int, pods: int) -> str:
    """Meet the other pods on the volume, then see that a lock which pod 0 holds is refused to the others.

    Raises:
        LabError: The others do not come, so the path is not the same volume in all pods; or the lock is given twice.
    """
    meeting = _Meeting(root / "preflight", pod, pods)
    meeting.meet()
    if pod == 0:
        with _locked(meeting.folder / "lock"):
            meeting.tell("holds-0", {"holder": meeting.ids[0]})
            tried = [meeting.hear(f"tried-{other}", "holder", meeting.ids[0]) for other in range(1, pods)]
        given = [answer["host"] for answer in tried if not answer["refused"]]
    else:
        meeting.hear("holds-0", "holder", meeting.ids[0])
        refused = _is_refused(meeting.folder / "lock")
        meeting.tell(f"tried-{pod}", {"holder": meeting.ids[0], "refused": refused, "host": socket.gethostname()})
        given = [] if refused else [socket.gethostname()]
    if given:
        raise LabError(f"{root}: flock does not hold between pods (also given to {', '.join(given)}); use NFS 4 or CephFS")
    return f"{root} is the same in {pods} pods, and flock holds between them"


@dataclass
class _Meeting:
    """A folder on the volume by which pods meet; files of earlier meetings are told apart by each pod's new id."""

    folder: Path
    pod: int
    pods: int
    ids: dict[int, str] = field(default_factory=dict)
    """The id of each pod, once all have met."""

    def meet(self) -> None:
        """Wait until every pod has seen every other, and fill `ids`."""
        mine = uuid.uuid4().hex
        others = [other for other in range(self.pods) if other != self.pod]
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            seen = {other: self._said(f"pod-{other}") for other in others}
            self.tell(f"pod-{self.pod}", {"id": mine, "seen": {other: said.get("id") for other, said in seen.items()}})
            if all(said.get("seen", {}).get(str(self.pod)) == mine for said in seen.values()):
                self.ids = {self.pod: mine, **{other: said["id"] for other, said in seen.items()}}
                return
            self._wait(deadline, f"{self.pods - 1} other pods")

    def tell(self, name: str, value: dict[str, Any]) -> None:
        write_json(self.folder / f"{name}.json", value)

    def hear(self, name: str, key: str, expected: str) -> dict[str, Any]:
        """Wait until another pod has told this, with the expected value for `key`."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while (said := self._said(name)).get(key) != expected:
            self._wait(deadline, name)
        return said

    def _said(self, name: str) -> dict[str, Any]:
        path = self.folder / f"{name}.json"
        said: dict[str, Any] = read_json(path) if path.exists() else {}
        return said

    def _wait(self, deadline: float, what: str) -> None:
        if time.monotonic() > deadline:
            raise LabError(f"{self.folder}: waited in vain for {what}; is the same volume mounted at this path in all pods?")
        time.sleep(_POLL_SECONDS)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_refused(path: Path) -> bool:
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def _gpu(settings: Settings) -> str:
    """Multiply on the GPU.

    Raises:
        LabError: There is none, and the settings ask for some.
    """
    import torch

    k8s = settings.k8s
    if not any(pod.gpus for pod in (k8s.training, k8s.evaluation, k8s.generation)):
        return "the settings ask for none"
    if not torch.cuda.is_available():
        raise LabError(
            "no GPU is visible to torch: does the node have a driver and the device plugin, and does the image have CUDA? "
            "(gpus: 0 in the settings, under k8s, trains on CPUs)"
        )
    torch.ones(8, 8, device="cuda").matmul(torch.ones(8, 8, device="cuda"))
    return torch.cuda.get_device_name()


def _database(instance: dg.DagsterInstance) -> str:
    kind = type(instance.run_storage).__name__
    if kind.startswith("Sqlite"):
        raise LabError("dagster.yaml keeps runs in SQLite, which pods cannot share; give it a PostgreSQL database")
    return f"{kind}, {instance.get_runs_count()} runs"


def _pools(instance: dg.DagsterInstance) -> str:
    """Give each of the lab's pools a limit of one, unless it has a limit."""
    storage = instance.event_log_storage
    limits = {pool.name: pool.limit for pool in storage.get_pool_limits() if not pool.from_default}
    for pool in (named("gpu"), named("teacher")):
        if pool not in limits:
            storage.set_concurrency_slots(pool, 1)
            limits[pool] = 1
    return ", ".join(f"{pool}: {limits[pool]}" for pool in (named("gpu"), named("teacher")))


def _rights(instance: dg.DagsterInstance) -> str:
    """Ask Kubernetes whether this pod's account may do all of `RIGHTS`."""
    from dagster_k8s.launcher import K8sRunLauncher
    from kubernetes import client

    launcher = instance.run_launcher
    if not isinstance(launcher, K8sRunLauncher):
        raise LabError("dagster.yaml does not name K8sRunLauncher as the run launcher")
    api, missing = client.AuthorizationV1Api(), []
    for (group, resource, subresource), verbs in RIGHTS.items():
        for verb in verbs:
            attributes = client.V1ResourceAttributes(
                namespace=launcher.job_namespace, group=group, resource=resource, subresource=subresource or None, verb=verb
            )
            spec = client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
            if not api.create_self_subject_access_review(client.V1SelfSubjectAccessReview(spec=spec)).status.allowed:
                missing.append(" ".join(filter(None, (verb, resource, subresource))))
    if missing:
        raise LabError(f"the service account may not: {', '.join(missing)}; apply deploy/kubernetes/access.yaml")
    return f"jobs and pods in the namespace {launcher.job_namespace}"
