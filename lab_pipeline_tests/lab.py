"""A home whose teacher is a stub endpoint and whose base model is tiny: the whole pipeline in seconds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from lab_pipeline.core.home import Home
from lab_pipeline.runtime.launcher import prepare
from lab_pipeline.taxonomy.leaf import Kind
from lab_pipeline_tests.stub_endpoint import Answer, Asked, StubEndpoint

ENVIRONMENT = ("LAB_HOME", "DAGSTER_HOME", "DAGSTER_DISABLE_TELEMETRY", "GX_ANALYTICS_ENABLED", "TOKENIZERS_PARALLELISM")

RECIPE = {
    "lora": {"rank": 4, "alpha": 8},
    "quantization": "nf4",
    "pack_tokens": 256,
    "packs_per_step": 1,
    "knowledge": {"epochs": 1, "learning_rate": 0.001, "general_replay": 4},
    "skills": {"epochs": 1, "learning_rate": 0.001, "general_replay": 4, "phase_1_replay": 0.2},
}


@dataclass
class TestLab:
    __test__ = False

    home: Home
    taxonomy: Path
    stub: StubEndpoint

    def calls(self) -> int:
        """Requests that the teacher's server got so far."""
        return len(self.stub.requests)

    def set(self, **settings: Any) -> None:
        """Change keys of `settings.yaml`."""
        values = yaml.safe_load(self.home.settings_file.read_text())
        self.home.settings_file.write_text(yaml.safe_dump({**values, **settings}))


OPEN_GATE = {
    "minimum_gain": 0.0,
    "retrain_noise": 0.01,
    "confidence": 0.6,
    "general_tolerance": 50.0,
    "unchanged_tolerance": 50.0,
}
"""A gate that lets models pass that learn at random, as a random one does."""


@contextmanager
def lab(folder: Path, taxonomy: Path, model: Path, patch: pytest.MonkeyPatch) -> Iterator[TestLab]:
    """A prepared home on `taxonomy`; the environment is put back at the end."""
    for name in ENVIRONMENT:
        patch.setenv(name, "")
    patch.setenv("OMP_NUM_THREADS", "1")  # a tiny model gains nothing from more, and spinning threads starve other processes
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    home = folder / "home"
    home.mkdir()
    with StubEndpoint(obliging) as stub:
        settings = {
            "taxonomy": {"path": str(taxonomy)},
            "teacher": {"kind": "endpoint", "url": stub.url, "model": "stub", "retries": 0},
            "flows": {kind: f"simple_{kind}" for kind in get_args(Kind)},
            "base_model": str(model),
            "recipe": str(recipe),
            "exam": {"most": 0},
        }
        (home / "settings.yaml").write_text(yaml.safe_dump(settings))
        yield TestLab(prepare(home, taxonomy), taxonomy, stub)


def obliging(asked: Asked) -> Answer:
    """A teacher that does what the simple flows ask, in words the rules accept."""
    last = asked.last
    if "Answer Yes or No" in last:
        return Answer(text="Yes", probabilities={"Yes": 0.9, "No": 0.1})
    if found := re.fullmatch(r"Sentence: (.*)", last, re.DOTALL):
        return Answer(text=f"What of {' '.join(found.group(1).rstrip('.').split()[:-1])}?")
    number = asked.body["seed"]
    if last.startswith("Write a new exercise."):
        return Answer(text=f"Write one line about the lamp number {number}.")
    if last.startswith("Write a text"):
        return Answer(text=f"The lamp number {number} stands in the hall. Anna will bring the lamp by Friday.")
    if found := re.fullmatch(r"Text: (.*)\n\n.*", last, re.DOTALL):
        return Answer(text=found.group(1))
    if last.startswith("Text:"):
        return Answer(text=f"What will Anna bring, and by when, to lamp number {re.findall('[0-9]+', last)[0]}?")
    return Answer(text=f"Here is a line: {last}")
