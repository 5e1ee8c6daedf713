"""Push an export to the Hugging Face hub or to an OCI registry, with the credentials that their own tools keep."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.storage import read_json
from lab_pipeline.registry.oci import MANIFEST, blob

_REFERENCE = re.compile(
    r"(?P<host>localhost(:\d+)?|[\w-]+(\.[\w-]+)*:\d+|[\w-]+(\.[\w-]+)+)/"
    r"(?P<name>[a-z0-9]+([._/-]+[a-z0-9]+)*)(:(?P<tag>\w[\w.-]{0,127}))?",
    re.ASCII,
)
_THIS_MACHINE = ("localhost", "127.0.0.1")
_SECONDS = 300


def require_repository(repository: str, oci: bool) -> None:
    """Check that an export can be pushed to a repository of that name.

    Raises:
        LabError: it is no REGISTRY/NAME or REGISTRY/NAME:TAG if `oci`, or no OWNER/NAME of the hub otherwise.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if oci:
        if not _REFERENCE.fullmatch(repository):
            raise LabError(f"--push: expected REGISTRY/NAME or REGISTRY/NAME:TAG, such as ghcr.io/me/model, found {repository}")
        return
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise LabError(f"--push: expected OWNER/NAME of a repository on the Hugging Face hub: {error}") from None


def push_to_hub(folder: Path, repository: str, message: str) -> str:
    """Upload a folder as one commit to a model repository on the hub, and return the commit's URL.

    A repository that does not exist yet is created as a private one. `HF_TOKEN` or `hf auth login` gives the token, and
    `HF_ENDPOINT` another hub.

    Raises:
        LabError: the hub cannot be reached or refuses it.
    """
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import LocalTokenNotFoundError

    hub = HfApi()
    try:
        hub.create_repo(repository, private=True, exist_ok=True)
        return str(hub.upload_folder(repo_id=repository, folder_path=folder, commit_message=message).commit_url)
    except (httpx.HTTPError, LocalTokenNotFoundError) as error:  # the hub's own errors are HTTPErrors
        reason = str(error).strip().splitlines()[0]
        raise LabError(
            f"{hub.endpoint}: {repository} was not pushed ({reason}); the export in {folder} is whole: "
            f"set HF_TOKEN to a token that may write, then run hf upload {repository} {folder}"
        ) from None


def push_to_registry(layout: Path, reference: str) -> str:
    """Push the image of an OCI layout to REGISTRY/NAME:TAG, and return that reference with the image's digest.

    Blobs that the registry has are not sent again. Without a tag, it is the layout's own.

    Raises:
        LabError: the registry cannot be reached or refuses it.
    """
    import httpx

    found = _REFERENCE.fullmatch(reference)
    assert found
    host, name = found["host"], found["name"]
    described = read_json(layout / "index.json")["manifests"][0]
    tag = found["tag"] or described["annotations"]["org.opencontainers.image.ref.name"]
    manifest = read_json(blob(layout, described))
    try:
        with _Registry(host, name) as registry:
            for each in (manifest["config"], *manifest["layers"]):
                registry.push_blob(blob(layout, each), each["digest"])
            registry.send("PUT", f"manifests/{tag}", blob(layout, described), {"Content-Type": MANIFEST})
    except httpx.HTTPStatusError as error:
        status, login = error.response.status_code, f"; log in by docker login {host}"
        reason = f"HTTP {status}{login if status in (401, 403) else ''}"
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
    else:
        return f"{host}/{name}:{tag}@{described['digest']}"
    raise LabError(
        f"{host}: {name} was not pushed ({reason}); the export in {layout} is whole: push it by skopeo copy "
        f"oci:{layout} docker://{host}/{name}:{tag}"
    )


class _Registry:
    """One repository of an OCI registry, as the OCI distribution specification serves it."""

    def __init__(self, host: str, name: str) -> None:
        import httpx

        logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO it logs every URL, and those of uploads are secret
        scheme = "http" if host.partition(":")[0] in _THIS_MACHINE else "https"
        self.root = f"{scheme}://{host}/v2/{name}/"
        self.name, self.login = name, _login(host)
        self.client = httpx.Client(timeout=_SECONDS)
        self.authorization: str | None = None

    def __enter__(self) -> _Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def push_blob(self, path: Path, digest: str) -> None:
        import httpx

        try:
            self.send("HEAD", f"blobs/{digest}")
            return
        except httpx.HTTPStatusError as error:
            if error.response.status_code != httpx.codes.NOT_FOUND:
                raise
        begun = self.send("POST", "blobs/uploads/", None, {"Content-Length": "0"})
        place = urljoin(str(begun.url), begun.headers["Location"])
        mark = "&" if urlsplit(place).query else "?"
        self.send("PUT", f"{place}{mark}digest={digest}", path, {"Content-Type": "application/octet-stream"})

    def send(self, method: str, place: str, body: Path | None = None, headers: Mapping[str, str] | None = None) -> Any:
        """Send a request, with a file as its body; log in if the registry asks for it. A redirect counts as an answer."""
        response = self._try(method, place, body, headers)
        if response.status_code == 401 and self._log_in(response.headers.get("WWW-Authenticate", "")):
            response = self._try(method, place, body, headers)
        return response if response.is_redirect else response.raise_for_status()

    def _try(self, method: str, place: str, body: Path | None, headers: Mapping[str, str] | None) -> Any:
        url, sent = urljoin(self.root, place), dict(headers or {})
        if self.authorization and urlsplit(url).netloc == urlsplit(self.root).netloc:  # not to where uploads may be sent on
            sent["Authorization"] = self.authorization
        if body is None:
            return self.client.request(method, url, headers=sent)
        with body.open("rb") as file:
            return self.client.request(method, url, headers=sent, content=file)

    def _log_in(self, challenge: str) -> bool:
        """Answer a registry's challenge, and return False if it cannot be answered."""
        basic = {"Authorization": f"Basic {self.login}"} if self.login else {}
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic" and basic:
            self.authorization = basic["Authorization"]
            return True
        asked = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        realm = urlsplit(asked.get("realm", ""))
        if scheme.lower() != "bearer" or not (realm.scheme == "https" or realm.hostname in _THIS_MACHINE):
            return False
        wanted = {"service": asked.get("service", ""), "scope": f"repository:{self.name}:pull,push"}
        answer = self.client.get(asked["realm"], params=wanted, headers=basic).raise_for_status().json()
        self.authorization = f"Bearer {answer.get('token') or answer['access_token']}"
        return True


def _login(host: str) -> str | None:
    """Return name and password for a registry as docker's and podman's files keep them, in base64; None if they have none."""
    docker = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    for file in (Path(os.environ["REGISTRY_AUTH_FILE"]) if os.environ.get("REGISTRY_AUTH_FILE") else docker, docker):
        if file.is_file() and (entry := read_json(file).get("auths", {}).get(host)) and entry.get("auth"):
            return str(entry["auth"])
    return None
