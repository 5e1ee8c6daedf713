"""An OpenAI-compatible server of chat completions on this machine, whose answers a test scripts."""

from __future__ import annotations

import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What the server says to one request; the default is a completion with an empty text."""

    text: str = ""
    finish: str = "stop"
    probabilities: dict[str, float] = field(default_factory=dict)
    """Alternatives of the first token, given as `logprobs` where the request asks for them."""
    message: dict[str, Any] = field(default_factory=dict)
    """What the message holds beside its role, in place of the text."""
    usage: dict[str, Any] | None = None
    """Sent in place of the counts."""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    """Sent as it is, in place of a completion."""
    drop: bool = False
    """Close the connection without a word."""
    seconds: float = 0.0
    """Time that the answer takes."""


@dataclass(frozen=True)
class Asked:
    """A request as the server got it."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def last(self) -> str:
        """Content of the last message."""
        return self.body["messages"][-1]["content"]


def in_turn(answers: Iterable[Answer | str]) -> Callable[[Asked], Answer | str]:
    """A script that gives these answers one after another, whatever is asked."""
    left = iter(answers)
    return lambda asked: next(left)


class StubEndpoint:
    """`with StubEndpoint(reply) as stub:` serves `stub.url` on 127.0.0.1; `reply` answers each request.

    `reply` is never called twice at once. `port` 0 is any free one.
    """

    def __init__(self, reply: Callable[[Asked], Answer | str], port: int = 0) -> None:
        self.requests: list[Asked] = []
        self.most_at_once = 0
        """Largest number of requests that were open together."""
        self.reply = reply
        self.connections = 0
        self.open = 0
        """Number of requests that are open now."""
        self._lock = threading.Lock()
        self._server = _Server(self, port)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> StubEndpoint:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, asked: Asked) -> Answer:
        with self._lock:
            self.open += 1
            self.most_at_once = max(self.most_at_once, self.open)
            self.requests.append(asked)
            answer = self.reply(asked)
        answer = Answer(answer) if isinstance(answer, str) else answer
        time.sleep(answer.seconds)
        with self._lock:
            self.open -= 1
        return answer


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def __init__(self, stub: StubEndpoint, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.stub = stub

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is part of the tests, not worth a traceback."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.stub.connections += 1

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = self.server.stub.answer(Asked(self.path, dict(self.headers), body))
        if answer.drop:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if self.path != "/v1/chat/completions":
            answer = Answer(status=404, body='{"error": "no such path"}')
        content = (_completion(body, answer) if answer.body is None else answer.body).encode()
        self.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _completion(body: dict[str, Any], answer: Answer) -> str:
    prompt_tokens = sum(len(message["content"].split()) for message in body["messages"])
    completion_tokens = len(answer.text.split())
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", **(answer.message or {"content": answer.text})},
        "finish_reason": answer.finish,
    }
    if body.get("logprobs") and answer.probabilities:
        alternatives = [
            {"token": token, "logprob": math.log(probability)} for token, probability in answer.probabilities.items()
        ]
        choice["logprobs"] = {"content": [{**alternatives[0], "top_logprobs": alternatives[: body["top_logprobs"]]}]}
    usage = answer.usage or {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    return json.dumps({"id": "stub", "object": "chat.completion", "model": body["model"], "choices": [choice], "usage": usage})
