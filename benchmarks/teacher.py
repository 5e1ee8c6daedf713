"""How fast are calls to a teacher behind an endpoint?

Asks a stub server in a process of its own, 50 ms a call, 64 in flight:

- `rate_of_ideal`: calls per second over 1,280, from the first call on, the journal included; `cpu_ms` is a call's processor
  time, and `stub_cpu_ms` that of the stub. `cpu_vs_openai` compares it with the package `openai` in the same run (without a
  journal), for which `--openai-python` names the Python of an environment that has it.
- `mib_100k_calls`: peak size of a process that makes 100,000 calls and then reads them from the journal.
- `flow_overhead`: one knowledge leaf and one grounded skill, generated and judged by their strong flows: wall time over the
  least that the calls take, which is one row's calls one after another, or all calls with 64 in flight. `flows` has both.

    python -P benchmarks/teacher.py [--openai-python PYTHON]

`--calls 1000 --many 10000` is the short form. `--seconds` sets another time of a call, as for a machine on which the package
`openai` takes several times the processor time of that in `benchmarks/README.md`.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop

from lab_pipeline.config.teachers import EndpointTeacherSettings
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import is_document_instruction
from lab_pipeline.core.storage import read_json
from lab_pipeline.flows.flow import load_flow
from lab_pipeline.instructions.generate import generate, in_room, judge
from lab_pipeline.taxonomy.snapshot import take_snapshot
from lab_pipeline.teacher.endpoint import EndpointTeacher
from lab_pipeline.teacher.journal import JournaledTeacher
from lab_pipeline.teacher.protocol import Message, Request
from lab_pipeline_tests.builders import GROUNDED, KNOWLEDGE, settings_for, word, write_knowledge, write_skill

AT_ONCE = 64
CONVERSATION = [
    {"role": "system", "content": "You write exercises for people who learn about rivers. " * 20},
    {"role": "user", "content": "The gate of Harsk is made of walnut. It was built by Pellira Donsk. " * 40},
]
OPENAI = """
import asyncio, json, sys, time
from openai import AsyncOpenAI
url, calls, at_once, conversation = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])

async def main():
    client, slots = AsyncOpenAI(base_url=url, api_key="none", max_retries=0), asyncio.Semaphore(at_once)

    async def ask(number):
        async with slots:
            messages = [*conversation, {"role": "user", "content": f"Number {number}?"}]
            said = await client.chat.completions.create(model="stub", messages=messages, max_tokens=100, seed=1)
            return said.choices[0].message.content

    await asyncio.gather(*map(ask, range(-at_once, 0)))
    started, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*map(ask, range(calls)))
    print(json.dumps([time.perf_counter() - started, time.process_time() - used]))

asyncio.run(main())
"""


def measure(calls: int, seconds: float, many: int, openai_python: str | None) -> dict[str, Any]:
    """Return the figures of `calls` calls of `seconds` each, and of `many` calls for memory.

    `openai_python` is a Python that has the package `openai`.
    """
    found = _in_child("rate", calls, seconds)
    if openai_python:
        with stub(seconds) as (url, _):
            command = [openai_python, "-c", OPENAI, url, str(calls), str(AT_ONCE), json.dumps(CONVERSATION)]
            wall, cpu = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        found["openai_rate_of_ideal"] = round(calls * seconds / AT_ONCE / wall, 3)
        found["openai_cpu_ms"] = round(1000 * cpu / calls, 3)
        found["cpu_vs_openai"] = round(found["cpu_ms"] / found["openai_cpu_ms"], 3)
    else:
        print("cpu_vs_openai: left out; --openai-python names a Python that has the package openai", file=sys.stderr)
    found |= _in_child("memory", many, 0)
    overheads = {kind: _in_child(kind, calls, seconds) for kind in ("knowledge", "grounded_skill")}
    return {**found, "flow_overhead": max(each["overhead"] for each in overheads.values()), "flows": overheads}


def _in_child(what: str, calls: int, seconds: float) -> dict[str, Any]:
    """Measure in a process of its own, so that its processor time and memory are those of the calls."""
    command = [sys.executable, "-P", __file__, what, "--calls", str(calls), "--seconds", str(seconds)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


@contextmanager
def stub(seconds: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """Address of a stub server in a process of its own, and what it says when it has ended: requests, and its own cost."""
    command = [sys.executable, "-P", str(Path(__file__).with_name("stub_server.py")), str(seconds)]
    said: dict[str, Any] = {}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1", said
        said |= json.loads(process.communicate()[0])


def endpoint(url: str, at_once: int = AT_ONCE) -> EndpointTeacher:
    return EndpointTeacher(EndpointTeacherSettings(kind="endpoint", url=url, model="stub", concurrency=at_once))


def request(number: int) -> Request:
    conversation = (*(Message(**message) for message in CONVERSATION), Message("user", f"Number {number}?"))
    return Request(conversation, 100, 0.7, 1)


async def ask(teacher: EndpointTeacher, journal: Path, calls: int) -> int:
    """Make so many calls, as drafts of rows do, and return how many of them the journal answered."""
    journaled = JournaledTeacher(teacher, journal)

    async def one(number: int) -> None:
        await journaled.reply(request(number))

    await in_room(range(calls), one, None)
    return journaled.recalled


def rate(calls: int, seconds: float) -> dict[str, Any]:
    """Calls with 64 in flight, journal included, from the first one on."""
    with stub(seconds) as (url, server), tempfile.TemporaryDirectory() as folder:
        started, used = time.perf_counter(), time.process_time()
        uvloop.run(ask(endpoint(url), Path(folder), calls))
        wall, cpu = time.perf_counter() - started, time.process_time() - used
    return {
        "calls": calls,
        "rate_of_ideal": round(calls * seconds / AT_ONCE / wall, 3),
        "cpu_ms": round(1000 * cpu / calls, 3),
        "stub_cpu_ms": server["cpu_ms"],
    }


def memory(calls: int) -> dict[str, Any]:
    """Peak size of a process that makes so many calls through one journal, and then has all of them answered by it."""
    with stub(0) as (url, _), tempfile.TemporaryDirectory() as folder:
        recalled = [uvloop.run(ask(endpoint(url, 256), Path(folder), calls)) for _ in range(2)]
    assert recalled == [0, calls]
    mib = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return {"memory_calls": calls, "mib_100k_calls": mib}


def flow(kind: str, calls: int, seconds: float) -> dict[str, Any]:
    """Wall time in which one leaf's rows are generated and judged by its strong flow, over the least that it can take."""
    with stub(seconds) as (url, server), tempfile.TemporaryDirectory() as folder:
        source, wanted = _leaf(kind, Path(folder), calls), load_flow(kind)
        teacher = endpoint(url)
        journaled = [JournaledTeacher(teacher, Path(folder) / "journal") for _ in range(2)]

        async def rows() -> int:
            candidates = await generate(source, wanted, *journaled, 17, "commit")
            judged = await judge(candidates, source, wanted, journaled[1])
            assert all(row["scores"] or is_document_instruction(row) or row["fault"] for row in judged)
            return len(judged)

        started, used = time.perf_counter(), time.process_time()
        made = uvloop.run(rows())
        wall, cpu = time.perf_counter() - started, time.process_time() - used
    chain = bool(wanted.file.augmentations) + len(wanted.file.stages) + len({judge.before for judge in wanted.file.judges})
    least = seconds * max(server["requests"] / AT_ONCE, chain)
    return {
        "rows": made,
        "calls": server["requests"],
        "wall_s": round(wall, 2),
        "overhead": round(wall / least - 1, 3),
        "cpu_ms_a_call": round(1000 * cpu / server["requests"], 3),
        "mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def _leaf(kind: str, root: Path, calls: int) -> Any:
    """The frozen source of a leaf whose strong flow makes about so many calls."""
    if kind == "knowledge":
        key = KNOWLEDGE
        write_knowledge(root / "taxonomy", key, "documents")
        (document,) = (root / "taxonomy" / "documents").iterdir()
        sections = [
            f"## {word(number)}\n\n{' '.join(f'{word(number, each)} was founded by {word(each)}.' for each in range(80))}\n"
            for number in range(max(1, calls // 280))
        ]
        document.write_text("\n".join(sections))
    else:
        key = GROUNDED
        write_skill(root / "taxonomy", key, seeds=max(5, calls // 42), grounded=True)
    home = Home.open(root / "home")
    return read_json(home.leaf_source(take_snapshot(home, settings_for(root / "taxonomy")).usable[key]))


CHILDREN = ("rate", "memory", "knowledge", "grounded_skill")
"""What is measured in a process of its own."""


def child(what: str, calls: int, seconds: float) -> dict[str, Any]:
    if what == "memory":
        return memory(calls)
    return rate(calls, seconds) if what == "rate" else flow(what, calls, seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("child", nargs="?", choices=CHILDREN, help=argparse.SUPPRESS)
    parser.add_argument("--openai-python", help="a Python that has the package openai")
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=0.05, help="time of a call")
    parser.add_argument("--many", type=int, default=100_000, help="calls of which memory is measured")
    given = parser.parse_args()
    if given.child:
        figures = child(given.child, given.calls, given.seconds)
    else:
        figures = measure(given.calls, given.seconds, given.many, given.openai_python)
    print(json.dumps(figures))
