"""Makes a small complete home and packs it: taxonomy, leaves, data sets, checkpoints, an evaluation and a champion.

`python -m lab_pipeline_tests.homes.make OUT.tar.xz` makes one by the code as it stands; `test_upgrade.py` opens such homes by
later code. The archive holds `home/`, and beside it what its settings name: `taxonomy/`, `model/` and `recipe.yaml`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any, get_args

import yaml
from filelock import FileLock

from lab_pipeline.taxonomy.leaf import Kind
from lab_pipeline_tests.builders import write_taxonomy
from lab_pipeline_tests.lab import RECIPE, obliging
from lab_pipeline_tests.stub_endpoint import StubEndpoint

PORT = 18431
"""Where the teacher answers, always: its address is part of its identity, and for another teacher all is generated anew."""

SETTINGS = {
    "taxonomy": {"path": "../taxonomy"},
    "teacher": {"kind": "endpoint", "url": f"http://127.0.0.1:{PORT}/v1", "model": "stub", "retries": 0},
    "flows": {kind: f"simple_{kind}" for kind in get_args(Kind)},
    "base_model": "../model",
    "recipe": "../recipe.yaml",
    # a model this small learns little: let the gate pass whatever gains at all
    "gate": {"minimum_gain": 0.0, "general_tolerance": 50.0, "unchanged_tolerance": 50.0, "confidence": 0.51},
}

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def main(archive: Path) -> None:
    with TemporaryDirectory() as scratch, teacher():
        folder = Path(scratch)
        taxonomy, home = write_taxonomy(folder / "taxonomy"), folder / "home"
        write_model(folder / "model", [path.read_text(encoding="utf-8") for path in sorted(taxonomy.rglob("*.*"))])
        (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
        home.mkdir()
        (home / "settings.yaml").write_text(yaml.safe_dump(SETTINGS, sort_keys=False))
        first, second = retuned(home), retuned(home)
        assert all(leaf["kept"] for leaf in first["leaves"].values()), first["leaves"]
        assert first["promoted"], first["reason"]
        assert second["nothing_changed"]
        with tarfile.open(archive, "w:xz", preset=9) as packed:
            for part in ("home", "taxonomy", "model", "recipe.yaml"):
                packed.add(folder / part, part, filter=_without_logs)


@contextmanager
def teacher() -> Iterator[StubEndpoint]:
    """The teacher of these homes; one at a time on a machine, as it has but one port."""
    with FileLock(Path(gettempdir()) / f"lab-pipeline-teacher-{PORT}.lock"), StubEndpoint(obliging, PORT) as stub:
        yield stub


def retuned(home: Path) -> dict[str, Any]:
    """The summary of `lab-pipeline retune`, in a process of its own as an operator runs it."""
    summary = home.parent / "summary.json"
    done = subprocess.run(
        [sys.executable, "-m", "lab_pipeline.cli.app", "retune", "--home", str(home), "--summary", str(summary)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # a tiny model gains nothing from more threads
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(summary.read_text())


def write_model(folder: Path, texts: list[str]) -> None:
    """A Llama of two layers with random weights, whose tokenizer knows some 400 tokens of `texts`: about 100 kB in all."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    pieces.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=pieces,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
    )
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.2,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _without_logs(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """What of the home is packed: all but logs, and nothing on who made it."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return None if entry.name in ("home/logs", "home/dagster/storage") else entry


if __name__ == "__main__":
    main(Path(sys.argv[1]))
