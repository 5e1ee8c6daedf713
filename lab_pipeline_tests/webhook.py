"""A webhook on this machine that keeps what is posted to it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "T0K3N"
"""Part of the URL, as in a real webhook's; nothing may show it."""


@dataclass
class Webhook:
    url: str
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Content type and body of each request."""
    statuses: list[int] = field(default_factory=list)
    """Answers to the next requests; 200 when there are none left."""
    seconds: float = 0.0
    """Time that an answer takes."""

    @property
    def texts(self) -> list[str]:
        return [json.loads(body)["text"] for _, body in self.requests]


@contextmanager
def webhook() -> Iterator[Webhook]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            opened.requests.append((self.headers["Content-Type"], body))
            status = opened.statuses.pop(0) if opened.statuses else 200
            time.sleep(opened.seconds)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        opened = Webhook(f"http://127.0.0.1:{server.server_port}/services/{SECRET}")
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield opened
        finally:
            server.shutdown()
