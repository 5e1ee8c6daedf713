"""How fast is a training step, and what memory does it take, compared with trl's SFTTrainer and with an older build?

Trains the packaged model's NF4 QLoRA of rank 16 as the pipeline does, with the shipped recipe, in a process of its own. The
rows are seed examples of TAXONOMY, questions after their contexts, of up to a pack's length; `--rows` of them are drawn. The
older build is a checkout that trains on the same spec; trl trains as shipped (batches of 8, gradient checkpointing) in an
environment of its own. All alternate in one run. Rates are real tokens, prompts included, for each second of steps: for the
pipeline the difference between a long and a short training, so that loading does not count.

    python -P benchmarks/training.py MODEL_FOLDER TAXONOMY [--before CHECKOUT] [--trl-python PYTHON] [--rows 128] [--repeats 2]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from lab_pipeline.config.recipe import SHIPPED, load_recipe
from lab_pipeline.core.rows import TRAINING_SCHEMA, TrainingRow, as_conversation
from lab_pipeline.core.storage import read_json, write_json, write_rows
from lab_pipeline.datasets.rows import custom_row
from lab_pipeline.defs.checkpoints.assets import MALLOC
from lab_pipeline.models.loader import load_tokenizer
from lab_pipeline.models.packing import TokenRow, encode
from lab_pipeline.taxonomy.leaf import read_leaf

HERE = Path(__file__).parents[1]
RECIPE = "smollm2_135m_cpu"
SHORT, LONG = 1, 3
"""Numbers of epochs whose difference in time is that of the steps."""


def seed_rows(taxonomy: Path) -> list[TrainingRow]:
    """The seed examples of a taxonomy's leaves as training rows."""
    keys = sorted(str(file.parent.relative_to(taxonomy)) for file in taxonomy.rglob("qna.yaml"))
    leaves = [leaf for key in keys if (leaf := read_leaf(taxonomy, key).leaf)]
    seeds = [(leaf.key, seed) for leaf in leaves for seed in leaf.seeds]
    return [custom_row(as_conversation(seed.question, seed.context, seed.answer), False, {}, key) for key, seed in seeds]


def measured(command: list[str], environment: dict[str, str]) -> tuple[str, float]:
    """Run a command; return what it printed and its peak memory in MiB."""
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return printed, usage.ru_maxrss / 1024


def by_pipeline(checkout: Path, model: Path, dataset: Path, tokens: int) -> tuple[float, float]:
    """Return tokens per second and peak MiB of the build in `checkout`."""
    seconds, peak = {}, 0.0
    for epochs in (SHORT, LONG):
        output = Path(tempfile.mkdtemp())
        recipe = yaml.safe_load((SHIPPED / f"{RECIPE}.yaml").read_text(encoding="utf-8"))
        recipe.pop("fits")  # unknown to older builds
        recipe["knowledge"]["epochs"] = epochs
        spec = {"phase": "knowledge", "base_model": str(model), "dataset": str(dataset), "continued": None, "seed": 17}
        write_json(output / "spec.json", {**spec, "recipe": recipe, "output": str(output)})
        command = [sys.executable, "-P", "-m", "lab_pipeline.training", str(output / "spec.json")]
        _, used = measured(command, {**MALLOC, "PYTHONPATH": str(checkout)})
        seconds[epochs], peak = read_json(output / "report.json")["seconds"], max(peak, used)
    return tokens * (LONG - SHORT) / (seconds[LONG] - seconds[SHORT]), peak


def by_trl(python: str, model: Path, rows: list[TokenRow], tokens: int) -> tuple[float, float]:
    """Return tokens per second and peak MiB of trl."""
    file = Path(tempfile.mkdtemp()) / "rows.json"
    write_json(file, [{"input_ids": row.tokens, "labels": row.labels} for row in rows])
    printed, peak = measured([python, "-P", str(HERE / "benchmarks" / "trl_sft.py"), str(model), str(file)], {})
    return tokens / json.loads(printed.splitlines()[-1])["seconds"], peak


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("taxonomy", type=Path)
    parser.add_argument("--before", type=Path, help="a checkout of an older build")
    parser.add_argument("--trl-python", help="the Python of an environment with trl")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=2)
    wanted = parser.parse_args()
    tokenizer = load_tokenizer(wanted.model)
    most = load_recipe(RECIPE).pack_tokens
    known = [(row, encode(row, tokenizer)) for row in seed_rows(wanted.taxonomy)]
    fitting = [(row, tokens) for row, tokens in known if len(tokens.tokens) <= most]
    drawn = random.Random(17).sample(fitting, min(wanted.rows, len(fitting)))
    rows, encoded = [row for row, _ in drawn], [tokens for _, tokens in drawn]
    dataset = Path(tempfile.mkdtemp()) / "rows.parquet"
    write_rows(dataset, rows, TRAINING_SCHEMA)
    tokens = sum(len(row.tokens) for row in encoded)
    found: dict[str, list[tuple[float, float]]] = {"product": [], "before": [], "trl": []}
    for _ in range(wanted.repeats):
        found["product"].append(by_pipeline(HERE, wanted.model, dataset, tokens))
        if wanted.before:
            found["before"].append(by_pipeline(wanted.before, wanted.model, dataset, tokens))
        if wanted.trl_python:
            found["trl"].append(by_trl(wanted.trl_python, wanted.model, encoded, tokens))
    rates = {name: statistics.mean(rate for rate, _ in runs) for name, runs in found.items() if runs}
    peaks = {name: max(peak for _, peak in runs) for name, runs in found.items() if runs}
    report: dict[str, object] = {"rows": len(rows), "tokens": tokens, "longest": max(len(row.tokens) for row in encoded)}
    report |= {f"{name}_tokens_per_s": round(rate, 1) for name, rate in rates.items()}
    report |= {f"{name}_peak_mib": round(peak) for name, peak in peaks.items()}
    if "trl" in rates:
        report["vs_trl"] = round(rates["product"] / rates["trl"], 2)
        report["memory_vs_trl"] = round(peaks["product"] / peaks["trl"], 3)
    if "before" in rates:
        report["vs_before"] = round(rates["product"] / rates["before"], 2)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
