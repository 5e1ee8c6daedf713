"""Small training runs: rows, a recipe that takes seconds, and specs that join them to the tiny model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab_pipeline.config.recipe import Recipe
from lab_pipeline.core.rows import TRAINING_SCHEMA
from lab_pipeline.core.storage import write_json, write_rows
from lab_pipeline.models.packing import encode_answers
from lab_pipeline.training.train import TrainingSpec
from lab_pipeline.training.validation import ValidationSet


def training_row(
    question: str,
    answer: str,
    unmask: bool = False,
    system: str | None = None,
    leaf: str | None = "a/leaf",
    part: str = "train",
) -> dict[str, Any]:
    preamble = [{"role": "system", "content": system}] if system else []
    return {
        "id": f"{question}|{answer}",
        "messages": [*preamble, {"role": "user", "content": question}, {"role": "assistant", "content": answer}],
        "metadata": json.dumps({}),
        "unmask": unmask,
        "leaf": leaf,
        "source": "curated",
        "source_row": question,
        "part": part,
    }


def twelve_rows() -> list[dict[str, Any]]:
    return [training_row(f"Which number is {n} and {n}?", f"{2 * n}") for n in range(12)]


def rows_to_validate_on() -> list[dict[str, Any]]:
    """Four rows like the twelve of two leaves, and two general ones that these contradict: training on them forgets."""
    like = [
        training_row(f"Which number is {n} and {n}?", f"{2 * n}", leaf=f"{'ab'[n % 2]}/leaf", part="validation")
        for n in range(20, 24)
    ]
    general = [
        training_row(f"Which number is {n} and {n}?", "The sum of the two.", leaf=None, part="validation") for n in range(2)
    ]
    return like + general


def validation_set(rows: list[dict[str, Any]], tokenizer: Any) -> ValidationSet:
    return ValidationSet([encode_answers(row, tokenizer) for row in rows], [row["leaf"] for row in rows], 256)


def asked_at(step: int) -> Callable[[], bool]:
    """Asks for an end at that step; while rows are encoded, which comes first, it is asked twice."""
    calls = iter(range(-1, 10_000))
    return lambda: next(calls) >= step


def forgetful_model(model: Path, folder: Path) -> Path:
    """The model with a chat template that no answer can be located by: each turn changes what stands before it."""
    shutil.copytree(model, folder)
    template = folder / "chat_template.jinja"
    template.write_text("{{ messages | length }}" + template.read_text())
    return folder


def recipe(**changed: Any) -> Recipe:
    """Three packs an epoch for the twelve rows; `epochs` counts for phase 1."""
    phase = {"epochs": changed.pop("epochs", 4), "learning_rate": 5e-3}
    values: dict[str, Any] = {
        "lora": {"rank": 4, "alpha": 8},
        "quantization": "none",
        "pack_tokens": 256,
        "packs_per_step": 1,
        "save_every_steps": 4,
        "knowledge": phase,
        "skills": {**phase, "epochs": 1, "phase_1_replay": 0.5},
    }
    return Recipe.model_validate(values | changed)


def training_spec(
    output: Path, model: Path, rows: list[dict[str, Any]], wanted: Recipe, seed: int = 17, **changed: Any
) -> TrainingSpec:
    """A spec whose data set and `spec.json` are written beside its output."""
    dataset = output.parent / f"{output.name}-data.parquet"
    write_rows(dataset, rows, TRAINING_SCHEMA)
    values: dict[str, Any] = {
        "phase": "knowledge",
        "base_model": str(model),
        "dataset": str(dataset),
        "continued": None,
        "recipe": wanted.model_dump(),
        "seed": seed,
        "output": str(output),
    }
    write_json(output / "spec.json", values | changed)
    return TrainingSpec(**(values | changed))
