"""What do the exam's scores cost, against an earlier build?

1,000 questions about 50 passages of 250 words, 20 on each, are scored by the model in MODEL_FOLDER, each passage being the
context of its questions. Both builds do so in processes of their own, one after the other, `--pairs` times.

- `score_1000_vs_before`: this build's time over the earlier one's, the model's loading included; the middle of the pairs.
  `score_1000_cpu_vs_before` is the same by processor time, which other programs disturb less.
- `score_mib_vs_before`: likewise, the memory that scoring takes beside the loaded model, at its peak.
- `most_apart`: the largest difference between both builds' losses of a question, in nats per token; `mean_apart` over all.

    python -P benchmarks/exam.py MODEL_FOLDER --before CHECKOUT [--questions 1000] [--pairs 3]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean, median
from typing import Any

ROOT = Path(__file__).parents[1]
WORDS, OF_A_PASSAGE = 250, 20


def questions(number: int) -> list[dict[str, Any]]:
    """Return questions about passages of the sample's documents that begin at random words; answers are five words of them."""
    draw = random.Random(0)
    documents = sorted((ROOT / "data/taxonomy/documents").rglob("*.md"))
    words = " ".join(document.read_text(encoding="utf-8") for document in documents).split()
    found = []
    for _ in range(-(-number // OF_A_PASSAGE)):
        passage = words[(start := draw.randrange(len(words) - WORDS)) : start + WORDS]
        for at in draw.sample(range(WORDS - 20), OF_A_PASSAGE):
            asked = f"What does the text say after the words {' '.join(passage[at : at + 8])}?"
            answer = " ".join(passage[at + 8 : at + 8 + draw.randint(3, 12)])
            found.append({"question": asked, "answer": answer, "context": " ".join(passage)})
    return found[:number]


def resident(peak: bool = False) -> int:
    """Return the bytes of this process that are in memory now, or were at most."""
    name = "VmHWM:" if peak else "VmRSS:"
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def score(model_folder: Path, number: int) -> dict[str, Any]:
    """Score the questions with the build on the path, in this process."""
    from lab_pipeline.models import likelihood

    load, loaded = likelihood.load_model, 0

    def noting(*arguments: Any, **options: Any) -> Any:
        nonlocal loaded
        model = load(*arguments, **options)
        for weights in model.parameters():
            weights.sum()  # they are mapped from the file, and come into memory when they are first read
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        loaded = resident()
        return model

    likelihood.load_model = noting
    asked = questions(number)
    wall, processor = time.perf_counter(), time.process_time()
    losses = likelihood.answer_losses(model_folder, asked, lambda text: None)
    seconds, processor = time.perf_counter() - wall, time.process_time() - processor
    peak = resident(peak=True)
    return {"seconds": seconds, "cpu": processor, "bytes": peak - loaded, "process": peak, "losses": losses}


def scored(build: Path, model_folder: Path, number: int) -> dict[str, Any]:
    command = [sys.executable, "-P", __file__, str(model_folder), "--questions", str(number), "--child"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(build)}, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def main(model_folder: Path, before: Path, number: int, pairs: int) -> None:
    runs = [{build: scored(build, model_folder, number) for build in (before, ROOT)} for _ in range(pairs)]
    found: dict[str, Any] = {"questions": number, "pairs": pairs}
    for key, kind in {"score_1000": "seconds", "score_1000_cpu": "cpu", "score_mib": "bytes", "process_mib": "process"}.items():
        found[f"{key}_vs_before"] = round(median(run[ROOT][kind] / run[before][kind] for run in runs), 3)
        unit = 2**20 if "mib" in key else 1
        found[key] = {name: round(median(run[build][kind] for run in runs) / unit, 1) for name, build in _named(before)}
    apart = [abs(one - other) for one, other in zip(runs[0][before]["losses"], runs[0][ROOT]["losses"], strict=True)]
    print(json.dumps({**found, "most_apart": round(max(apart), 4), "mean_apart": round(fmean(apart), 4)}))


def _named(before: Path) -> list[tuple[str, Path]]:
    return [("before", before), ("now", ROOT)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--child", action="store_true")
    wanted = parser.parse_args()
    if wanted.child:
        print(json.dumps(score(wanted.model, wanted.questions)))
    else:
        main(wanted.model, wanted.before, wanted.questions, wanted.pairs)
