"""Mixed data sets of a filled home, for the tests of what is done with them."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from lab_pipeline.config.settings import DatasetSettings, MixingSettings
from lab_pipeline.core.rows import ExcludedRow, GeneralQuestion, HeldoutSet, TrainingRow
from lab_pipeline.core.storage import read_rows
from lab_pipeline.datasets.dataset import Dataset
from lab_pipeline.datasets.mix import mix_knowledge, mix_skills
from lab_pipeline_tests.datasets.filled import FilledHome
from lab_pipeline_tests.training.runs import recipe

REPLAY: list[GeneralQuestion] = [
    {"id": f"r{n}", "category": "words", "question": f"What is the opposite of {word}?", "answer": f"Not {word}."}
    for n, word in enumerate("hot tall early heavy quiet bright".split())
]


RECIPE = recipe(
    knowledge={"epochs": 1, "learning_rate": 1e-3, "general_replay": 3},
    skills={"epochs": 1, "learning_rate": 1e-3, "general_replay": 2, "phase_1_replay": 0.5},
)


def mixed(lab: FilledHome, heldout: HeldoutSet | None = None, order: int | None = None) -> tuple[Dataset, Dataset]:
    """Mix both phases' data; `order` shuffles the catalog's leaves."""
    catalog = lab.catalog()
    if order is not None:
        catalog = replace(catalog, leaves=random.Random(order).sample(catalog.leaves, len(catalog.leaves)))
    heldout = heldout or lab.heldout()
    knowledge = mix_knowledge(lab.home, catalog, heldout, REPLAY, RECIPE, lab.settings)
    return knowledge, mix_skills(lab.home, catalog, heldout, REPLAY, RECIPE, lab.settings, knowledge)


def split_rows(dataset: Dataset, split: str = "train") -> list[TrainingRow]:
    """Return the rows of one split."""
    return [row for row in dataset.read() if row["part"] == split]


def excluded(lab: FilledHome, dataset: Dataset) -> list[ExcludedRow]:
    return read_rows(lab.home.datasets / f"{dataset.phase}-{dataset.digest}-excluded.parquet")


def with_custom(lab: FilledHome, folder: Path, rows: list[Any]) -> FilledHome:
    """Return the lab with a custom data set in both phases."""
    path = folder / "mine.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    custom = [DatasetSettings(path=str(path), sampling_size=0.5)]
    mixing = MixingSettings(knowledge=custom, skills=[DatasetSettings(path=str(path))])
    return replace(lab, settings=lab.settings.model_copy(update={"mixing": mixing}))


def conversation(question: str, answer: str = "Yes.") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
