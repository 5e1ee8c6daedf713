"""How fast are teachers, behind an endpoint and embedded?

**Behind an endpoint**, a stub server in a process of its own, 50 ms a call, 64 in flight:

- `rate_of_ideal`: calls per second over 1,280, from the first call on, the journal included; `cpu_ms` is a call's processor
  time, and `stub_cpu_ms` that of the stub. `cpu_vs_openai` compares it with the package `openai` in the same run (without a
  journal), for which `--openai-python` names the Python of an environment that has it.
- `mib_100k_calls`: peak size of a process that makes 100,000 calls and then reads them from the journal.
- `flow_overhead`: one knowledge leaf and one grounded skill, generated and judged by their strong flows: wall time over the
  least that the calls take, which is one row's calls one after another, or all calls with 64 in flight. `flows` has both.

**Embedded**: what does sharing a prompt's beginning save? Asks the questions of the simple knowledge flow on the sample
taxonomy, once through `EmbeddedTeacher` and once by transformers' own batched `generate` (static cache, sorted by length) on
the same prompts, in the same process.

    python -P benchmarks/teacher.py [MODEL_FOLDER] [--openai-python PYTHON]

`--calls 1000 --many 10000` is the short form.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path

from benchmarks.teacher_endpoint import measure
from lab_pipeline.config.settings import Settings, TaxonomySettings
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import read_json
from lab_pipeline.flows.flow import load_flow
from lab_pipeline.instructions.generate import first_drafts
from lab_pipeline.models.loader import load_model, load_tokenizer
from lab_pipeline.runtime.launcher import SAMPLE_TAXONOMY
from lab_pipeline.taxonomy.snapshot import take_snapshot
from lab_pipeline.teacher.embedded import EmbeddedTeacher
from lab_pipeline.teacher.protocol import Request

LEAF = "knowledge/geography/thalveren"
BATCH = 32


def requests() -> list[Request]:
    flow = load_flow("simple_knowledge", "knowledge")
    with tempfile.TemporaryDirectory() as folder:
        home = Home.open(Path(folder))
        snapshot = take_snapshot(home, Settings(taxonomy=TaxonomySettings(path=str(SAMPLE_TAXONOMY))))
        source = read_json(home.leaf_source(snapshot.usable[LEAF]))
    return [Request(flow.render("question.yaml", draft.variables), 40) for draft in first_drafts(source, flow, 17)][: 3 * BATCH]


def shared(folder: Path, asked: list[Request]) -> tuple[float, int]:
    teacher = EmbeddedTeacher(folder, "benchmark", BATCH)
    asyncio.run(_ask(teacher, asked[:2]))  # load and warm up
    started = time.perf_counter()
    replies = asyncio.run(_ask(teacher, asked))
    return time.perf_counter() - started, sum(reply.completion_tokens for reply in replies)


async def _ask(teacher: EmbeddedTeacher, asked: list[Request]):
    return await asyncio.gather(*(teacher.reply(request) for request in asked))


def plain(folder: Path, asked: list[Request]) -> tuple[float, int]:
    import torch

    model, tokenizer = load_model(folder, "cpu"), load_tokenizer(folder)
    tokenizer.padding_side = "left"
    texts = [tokenizer.apply_chat_template(request.turns(), add_generation_prompt=True, tokenize=False) for request in asked]
    texts.sort(key=len)
    written = 0
    started = time.perf_counter()
    for start in range(0, len(texts), BATCH):
        batch = tokenizer(texts[start : start + BATCH], return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            output = model.generate(**batch, do_sample=False, max_new_tokens=40, cache_implementation="static")
        new = output[:, batch["input_ids"].shape[1] :]
        written += int((new != tokenizer.pad_token_id).sum())
    return time.perf_counter() - started, written


def embedded(folder: Path) -> dict[str, float]:
    prompts = requests()
    plain_s, plain_tokens = plain(folder, prompts)
    shared_s, shared_tokens = shared(folder, prompts)
    return {
        "requests": len(prompts),
        "plain_s": round(plain_s, 1),
        "shared_s": round(shared_s, 1),
        "speedup": round(plain_s / shared_s, 2),
        "plain_tokens": plain_tokens,
        "shared_tokens": shared_tokens,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, help="folder of the embedded teacher's model; left out: endpoints only")
    parser.add_argument("--openai-python", help="a Python that has the package openai")
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--many", type=int, default=100_000, help="calls of which memory is measured")
    given = parser.parse_args()
    figures = measure(given.calls, given.many, given.openai_python)
    if given.model:
        figures |= embedded(given.model)
    print(json.dumps(figures))
