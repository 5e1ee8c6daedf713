"""How long do the pages take over a million rows, and in how much memory?

Synthetic rows over 1,000 leaves, seven of ten kept, with a judge's score each: words drawn by Zipf's law from 20,000, passages
of about 100 words that eight rows share. The pages run in a process of their own, asked over http as a browser asks. Wall time
of whole pages, the second of two requests:

- `first_page_s`: the first page of all rows; `cold_first_page_s` is the very first request to the server
- `search_s`: rows that hold a text that none holds, so that all texts are read; `found_search_s` one that some hold
- `filter_s`: rejected rows of one rule; `score_filter_s` rows by a judge's score, `last_page_s` the last page of all rows
- `peak_mib`: largest resident size of the process that serves them

    python -P benchmarks/pages.py [ROWS]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lab_pipeline.config.settings import initial_settings
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import CURATED_SCHEMA, REJECTED_SCHEMA
from lab_pipeline.core.storage import write_json
from lab_pipeline.pages.server import listen

LEAVES = 1000
RULES = ["off_topic", "duplicate", "length", "judge faithful"]
PAGES = {
    "cold_first_page_s": "/rows",
    "first_page_s": "/rows",
    "search_s": "/rows?text=no+row+says+this",
    "found_search_s": "/rows?text=gnoo",
    "filter_s": "/rows?rule=off_topic&status=rejected",
    "score_filter_s": "/rows?judge=faithful&least=0.99",
    "last_page_s": "/rows?number={last}",
}


def make(home: Home, rows: int) -> None:
    """Fill a home with tables of kept and rejected rows."""
    draw = np.random.default_rng(17)
    syllables = str.maketrans("0123456789abcdef", "aeioubdfgklmnprs")
    vocabulary = np.array([f"{word:x}".translate(syllables) for word in range(20_000)])
    weights = 1 / np.arange(1, 20_001)
    pool = draw.choice(vocabulary, 4_000_000, p=weights / weights.sum())
    each = rows // LEAVES

    def texts(count: int, least: int, most: int) -> list[str]:
        starts, lengths = draw.integers(0, len(pool) - most, count), draw.integers(least, most, count)
        return [" ".join(pool[start : start + length]) for start, length in zip(starts, lengths, strict=True)]

    for number in range(LEAVES):
        leaf = f"knowledge/topic_{number % 37}/leaf_{number:04}"
        passages = texts(each // 8 + 1, 80, 120)
        scores = [[{"judge": "faithful", "score": score, "verdict": "Yes"}] for score in draw.random(each).round(3).tolist()]
        constant = {"leaf": leaf, "kind": "knowledge", "document": "d.md", "document_commit": "c", "taxonomy_commit": "c"}
        constant |= {"flow": "simple_knowledge", "teacher": "t", "flow_version": 1, "advice": []}
        columns = {
            **{name: [value] * each for name, value in constant.items()},
            "id": [f"{number:06x}{row:014x}" for row in range(each)],
            "question": texts(each, 6, 12),
            "answer": texts(each, 6, 30),
            "support": [passages[row // 8] for row in range(each)],
            "scores": scores,
        }
        every = pa.table({name: columns.get(name, [None] * each) for name in CURATED_SCHEMA.names}, CURATED_SCHEMA)
        is_kept = draw.random(each) < 0.7
        kept, rejected = every.filter(pa.array(is_kept)), every.filter(pa.array(~is_kept))
        reasons = {
            "rule": pa.array(draw.choice(RULES, len(rejected)).tolist()),
            "reason": pa.array(["too far"] * len(rejected)),
        }
        folder = home.leaf(leaf)
        folder.mkdir(parents=True)
        pq.write_table(kept, folder / "curated-x.parquet")
        pq.write_table(
            pa.table({**dict(zip(every.column_names, rejected.columns, strict=True)), **reasons}, REJECTED_SCHEMA),
            folder / "rejected-x.parquet",
        )
        prints = dict.fromkeys(("source", "generated", "judged", "curated"), "x")
        funnel = {"generated": each, "off_topic": len(rejected), "kept": len(kept)}
        state = {
            "leaf": leaf,
            "kind": "knowledge",
            **prints,
            "funnel": funnel,
            "teacher_calls": 0,
            "refreshed_at": "2026-01-01",
        }
        write_json(folder / "state.json", state)
    home.settings_file.write_text(initial_settings(home.root))


def main(rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Home.open(Path(folder))
        make(home, rows)
        probe = listen("127.0.0.1", 0)
        port = probe.getsockname()[1]
        probe.close()
        command = ["lab_pipeline.cli.app", "pages", "--home", folder, "--port", str(port)]
        server = subprocess.Popen([sys.executable, "-P", "-m", *command], stdout=subprocess.DEVNULL)
        try:
            print(json.dumps({"rows": rows, "processors": os.cpu_count(), **measure(port, server.pid, rows)}))
        finally:
            server.terminate()
            server.wait()


def measure(port: int, server: int, rows: int) -> dict[str, float]:
    """Ask for each page, and return the seconds and the memory that the server came to."""
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
    while True:
        try:
            client.get("/static/pages.css").raise_for_status()
            break
        except httpx.ConnectError:
            time.sleep(0.2)
    found: dict[str, float] = {}
    for name, address in PAGES.items():
        for _ in range(1 if name.startswith("cold") else 2):
            started = time.monotonic()
            client.get(address.format(last=rows // 50)).raise_for_status()
            found[name] = round(time.monotonic() - started, 3)
    status = Path(f"/proc/{server}/status").read_text()
    return {**found, "peak_mib": int(status.split("VmHWM:")[1].split()[0]) // 1024}


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
