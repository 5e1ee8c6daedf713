"""What does sharing a prompt's beginning save?

Asks the questions of the simple knowledge flow on the sample taxonomy, once through `EmbeddedTeacher` and once by
transformers' own batched `generate` (static cache, sorted by length) on the same prompts, in the same process.

    python -P benchmarks/teacher.py MODEL_FOLDER
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

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


if __name__ == "__main__":
    model_folder, prompts = Path(sys.argv[1]), requests()
    plain_s, plain_tokens = plain(model_folder, prompts)
    shared_s, shared_tokens = shared(model_folder, prompts)
    print(
        json.dumps(
            {
                "requests": len(prompts),
                "plain_s": round(plain_s, 1),
                "shared_s": round(shared_s, 1),
                "speedup": round(plain_s / shared_s, 2),
                "plain_tokens": plain_tokens,
                "shared_tokens": shared_tokens,
            }
        )
    )
