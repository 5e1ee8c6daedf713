"""An OCI registry and a Hugging Face hub on this machine, which keep what is pushed to them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

SECRET = "s3cret-t0ken"


@dataclass
class Stub:
    host: str
    blobs: dict[str, bytes] = field(default_factory=dict)
    """What was pushed, by digest; on the hub, by path."""
    manifests: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    stub: Stub

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, status: int, value: Any = None, **headers: str) -> None:
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Length": str(len(body)), "Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Registry(_Handler):
    """As the OCI distribution specification has it, with a token for whoever gives the right password."""

    def handled(self) -> None:
        body, url = self.body(), urlsplit(self.path)
        self.stub.requests.append(f"{self.command} {url.path}")
        if url.path == "/token":
            known = base64.b64encode(f"anna:{SECRET}".encode()).decode()
            granted = self.headers.get("Authorization") == f"Basic {known}" and parse_qs(url.query)["scope"]
            self.answer(200, {"token": granted[0]}) if granted else self.answer(401)
        elif self.headers.get("Authorization") != "Bearer repository:me/model:pull,push":
            challenge = f'Bearer realm="http://{self.stub.host}/token",service="stub"'
            self.answer(401, WWW_Authenticate=challenge)
        elif self.command == "HEAD":
            self.answer(200 if url.path.rpartition("/")[2] in self.stub.blobs else 404)
        elif self.command == "POST":
            self.answer(202, Location="/v2/me/model/blobs/uploads/1?state=x")
        elif "/manifests/" in url.path:
            self.stub.manifests[url.path.rpartition("/")[2]] = body
            self.answer(201)
        else:
            digest = parse_qs(url.query)["digest"][0]
            assert digest == f"sha256:{hashlib.sha256(body).hexdigest()}"
            self.stub.blobs[digest] = body
            self.answer(201)

    do_HEAD = do_POST = do_PUT = do_GET = handled


class _Hub(_Handler):
    """As much of the hub's API as an upload needs; every file is a regular one, so none goes to large-file storage."""

    def do_POST(self) -> None:
        body = self.body()
        self.stub.requests.append(f"{self.command} {self.path}")
        if self.headers.get("Authorization") != f"Bearer {SECRET}":
            self.answer(401, {"error": "Invalid username or password."})
        elif self.path == "/api/repos/create":
            assert json.loads(body)["visibility"] == "private"
            self.answer(200, {"url": f"http://{self.stub.host}/me/model", "name": "me/model", "id": "1"})
        elif self.path.endswith("/preupload/main"):
            files = [{"path": each["path"], "uploadMode": "regular"} for each in json.loads(body)["files"]]
            self.answer(200, {"files": [{**each, "shouldIgnore": False} for each in files]})
        elif "/commit/main" in self.path:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.stub.blobs[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            url = f"http://{self.stub.host}/me/model/commit/c0ffee"
            self.answer(200, {"success": True, "commitOid": "c0ffee", "commitUrl": url, "hookOutput": ""})
        else:
            self.answer(200, {"errors": [], "warnings": []})

    def do_GET(self) -> None:
        self.stub.requests.append(f"{self.command} {self.path}")
        info = {"id": "me/model", "sha": "c0ffee", "siblings": [], "private": True, "tags": []}
        self.answer(200, info if re.match("/api/models/", self.path) else {})


@contextmanager
def served(kind: type[_Handler]) -> Iterator[Stub]:
    handler: Any = type("Handler", (kind,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        handler.stub = Stub(f"127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield handler.stub
        finally:
            server.shutdown()


def stub_registry() -> Any:
    return served(_Registry)


def stub_hub() -> Any:
    return served(_Hub)
