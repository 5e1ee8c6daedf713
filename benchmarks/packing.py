"""What do encoding and packing many rows take, in time and memory, compared with an older build?

Writes synthetic conversations of log-normal lengths, as instruction rows have them, in row groups as the pipeline stores them;
then encodes and packs them, in a process of its own for each build, up to the point where training begins. Memory is the peak
of that process and its children together, files mapped into memory included.

    python -P benchmarks/packing.py MODEL_FOLDER [--rows 1000000] [--before CHECKOUT]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

PACK_TOKENS = 2048
WORDS = Path(__file__).read_text(encoding="utf-8").split()

NOW = """
import sys
from pathlib import Path
from lab_pipeline.models.packing import pack
from lab_pipeline.training.token_file import Packs, TokenFile, token_file, write_token_file
model, dataset, most = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
path = token_file(dataset.parent, dataset, "train", model, most)
write_token_file(path, dataset, model, most, lambda text: None, lambda: False)
rows = TokenFile(path)
packs = Packs(rows, pack(rows.lengths, most))
packs.digest
print(len(packs), sum(rows.lengths))
"""
BEFORE = """
import sys
from pathlib import Path
from lab_pipeline.core.storage import digest, read_rows
from lab_pipeline.models.loader import load_tokenizer
from lab_pipeline.models.packing import encode, flatten, pack
model, dataset, most = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
tokenizer = load_tokenizer(model)
rows = [row for row in read_rows(dataset) if row["part"] == "train"]
packs = [flatten(each) for each in pack([encode(row, tokenizer) for row in rows], most)]
digest([digest(each) for each in packs])
print(len(packs), sum(len(each["input_ids"]) for each in packs))
"""


def write(path: Path, number: int) -> None:
    from lab_pipeline.core.rows import TRAINING_SCHEMA

    chance = random.Random(17)
    with pq.ParquetWriter(path, TRAINING_SCHEMA) as writer:
        for start in range(0, number, 50_000):
            rows = []
            for row in range(start, min(start + 50_000, number)):
                words = max(4, min(1000, round(chance.lognormvariate(4, 0.8))))
                text = " ".join(chance.choices(WORDS, k=words))
                messages = [{"role": "user", "content": text[: len(text) // 3]}, {"role": "assistant", "content": text}]
                rows.append({"id": f"{row:016x}", "messages": messages, "unmask": False, "leaf": "a/leaf", "part": "train"})
            writer.write_table(pa.Table.from_pylist(rows, schema=TRAINING_SCHEMA))


def measured(code: str, checkout: Path, arguments: list[str]) -> tuple[float, float, str]:
    """Return seconds, peak MiB of the process and its children together, and what it printed: nothing if memory ran out."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(checkout)},
        stdout=subprocess.PIPE,
        text=True,
    )
    watched, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        family = [watched, *watched.children(recursive=True)]
        used = 0
        for each in family:
            try:
                used += each.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        peak = max(peak, used)
        time.sleep(0.2)
    assert process.stdout and process.returncode in (0, -signal.SIGKILL)
    return time.perf_counter() - started, peak / 2**20, process.stdout.read()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--before", type=Path, help="a checkout of an older build; it may need 25 KB of memory a row")
    wanted = parser.parse_args()
    name = "pack_1m" if wanted.rows == 1_000_000 else f"pack_{wanted.rows}"
    with tempfile.TemporaryDirectory() as folder:
        dataset = Path(folder) / "rows.parquet"
        write(dataset, wanted.rows)
        arguments = [str(wanted.model), str(dataset), str(PACK_TOKENS)]
        seconds, mib, printed = measured(NOW, Path(__file__).parents[1], arguments)
        packs, tokens = map(int, printed.split())
        report: dict[str, object] = {"rows": wanted.rows, "tokens": tokens, "filled": round(tokens / packs / PACK_TOKENS, 4)}
        report |= {f"{name}_s": round(seconds, 1), f"{name}_mib": round(mib)}
        print(report, file=sys.stderr, flush=True)
        if wanted.before:
            seconds, mib, printed_before = measured(BEFORE, wanted.before, arguments)
            assert printed_before in (printed, "")
            report |= {
                f"{name}_before_s": round(seconds, 1),
                f"{name}_before_mib": round(mib),
                "before_ended": bool(printed_before),
            }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
