"""A chat-completions server that is cheap enough not to be what is measured: HTTP/1.1 by hand on uvloop, in its own process.

It answers after so many seconds what the strong flows ask, as a good teacher and judge would. At the end of its input it prints
the number of requests it got and the processor time that each took it, in ms, as JSON.

    python -P benchmarks/stub_server.py SECONDS
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import sys
import time

import uvloop

from lab_pipeline.flows.flow import load_flow
from lab_pipeline_tests.scripted_teacher import known_verdicts

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
KNOWN = {
    question: good
    for kind in ("knowledge", "grounded_skill", "freeform_skill")
    for question, good in known_verdicts(load_flow(kind)).items()
}


class Server(asyncio.Protocol):
    seconds = 0.05
    requests = 0
    in_flight = most_in_flight = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.unread = b""

    def data_received(self, data: bytes) -> None:
        self.unread += data
        head, found, _ = self.unread.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if not found or not length or len(self.unread) < len(head) + 4 + int(length[1]):
            return
        body = json.loads(self.unread[len(head) + 4 :])
        self.unread = b""
        Server.requests += 1
        Server.in_flight += 1
        Server.most_in_flight = max(Server.most_in_flight, Server.in_flight)
        asyncio.get_running_loop().call_later(Server.seconds, self.answer, completion(body))

    def answer(self, content: bytes) -> None:
        Server.in_flight -= 1
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        self.transport.write(head.encode() + content)


def completion(body: dict) -> bytes:
    asked, seed = body["messages"][-1]["content"], body.get("seed", 0)
    choice: dict = {"index": 0, "message": {"role": "assistant", "content": said(asked, seed)}, "finish_reason": "stop"}
    if body.get("logprobs"):
        good = math.log(0.9), math.log(0.1)
        yes, no = good if KNOWN.get(asked, True) else reversed(good)
        top = [{"token": "Yes", "logprob": yes}, {"token": "No", "logprob": no}]
        choice["message"]["content"] = "Yes" if yes > no else "No"
        choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
    usage = {"prompt_tokens": len(asked) // 4, "completion_tokens": 40, "total_tokens": len(asked) // 4 + 40}
    answer = {"id": "stub", "object": "chat.completion", "created": 1, "model": "stub", "choices": [choice], "usage": usage}
    return json.dumps(answer).encode()


def said(asked: str, seed: int) -> str:
    """What the flows ask for: as many exercises, tasks or another text, and each time about something else."""
    several = re.search(r"Write (\d+) (exercises|tasks)\.$", asked)
    if not several:
        return f"The keeper of house {hash(asked) % 9973} and {seed % 9973} lights the lamp at dusk, and puts it out at dawn."
    items = []
    for number in range(int(several[1])):
        about = f"lamp {seed % 99991} in room {number} of house {hash(asked) % 9973}"
        items.append(f"Question: Who lights {about}?")
        if several[2] == "exercises":
            items.append(f"Answer: The keeper lights {about} at dusk.")
    return "\n".join(items)


async def serve(seconds: float) -> None:
    Server.seconds = seconds
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    used = time.process_time()
    await asyncio.to_thread(sys.stdin.read)
    spent = 1000 * (time.process_time() - used)
    cost = {"requests": Server.requests, "most_in_flight": Server.most_in_flight}
    print(json.dumps({**cost, "cpu_ms": round(spent / max(Server.requests, 1), 3)}))


if __name__ == "__main__":
    uvloop.run(serve(float(sys.argv[1])))
