from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from lab_pipeline.config.recipe import Lora
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import folder_digest
from lab_pipeline.models.base_model import BaseModel
from lab_pipeline.registry.candidate import load_candidate, merge_candidate
from lab_pipeline.registry.champion import promote
from lab_pipeline.training.checkpoint import Checkpoint
from lab_pipeline.training.quantized import load_base, with_adapter
from lab_pipeline_tests.registry.promotions import evaluation
from lab_pipeline_tests.training.runs import recipe

TOKENS = torch.arange(100, 130)[None]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


@pytest.fixture
def base(tiny_model: Path) -> BaseModel:
    return BaseModel(tiny_model, "tiny", folder_digest(tiny_model))


@pytest.fixture
def checkpoint(tiny_model: Path, tmp_path: Path) -> Checkpoint:
    """A checkpoint whose adapter, without any training, changes much."""
    model = with_adapter(load_base(tiny_model, recipe()), Lora(rank=4, alpha=8), None)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))
    model.save_pretrained(tmp_path / "skills-1" / "adapter")
    return Checkpoint("skills-1", tmp_path / "skills-1", {"adapter_digest": "d"})


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(input_ids=TOKENS).logits[0].float()


def plain(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)


def in_float32(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


def test_each_merged_weight_is_base_plus_adapter_rounded_to_bf16_once(home, base, checkpoint):
    merged = in_float32(merge_candidate(home, base, checkpoint).model).state_dict()
    alone = in_float32(base.folder).state_dict()
    exact = PeftModel.from_pretrained(in_float32(base.folder), checkpoint.adapter).merge_and_unload().state_dict()
    assert merged.keys() == exact.keys()
    assert any(not torch.equal(exact[name], alone[name]) for name in exact)
    for name, weight in exact.items():
        assert torch.equal(merged[name], weight.to(torch.bfloat16).float()), name


@pytest.mark.parametrize(("size", "least", "most"), [(1.0, 0.99, 1.01), (1e-2, 0.9, 1.0), (1e-4, 0.0, 0.5)])
def test_what_rounding_takes_of_small_updates_is_measured_and_said(home, base, tmp_path, size, least, most):
    """Each update's size is its ratio to the weight's. The smaller, the fewer weights change, but those that do change more."""
    model = with_adapter(load_base(base.folder, recipe()), Lora(rank=4, alpha=4), None)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            std = (0.2 * size / 2) if "lora_B" in name else 1.0
            torch.nn.init.normal_(parameter, std=std, generator=torch.Generator().manual_seed(1))
    model.save_pretrained(tmp_path / "skills-2" / "adapter")
    said: list[str] = []
    merged = merge_candidate(home, base, Checkpoint("skills-2", tmp_path / "skills-2", {"adapter_digest": "d"}), said.append)
    assert merged.update_kept is not None and least <= merged.update_kept <= most
    assert load_candidate(home, "skills-2").update_kept == merged.update_kept
    assert f"{merged.update_kept:.1%} of what the adapter learned is left" in said[-1]
    assert ("changed too little" in said[-1]) is (merged.update_kept < 0.9)


def test_the_merged_model_says_what_base_model_and_adapter_say_together(home, base, checkpoint):
    """All are computed in float32, so that between them is nothing but the weights. Merging as such changes nothing (1e-6
    measured). What ships is rounded to bf16: 1.0 % of these random layers' logits, what any bf16 weights must cost."""
    together = logits(PeftModel.from_pretrained(in_float32(base.folder), checkpoint.adapter))
    exact = PeftModel.from_pretrained(in_float32(base.folder), checkpoint.adapter).merge_and_unload()
    assert apart(logits(exact), together) < 1e-5
    best_in_bf16 = apart(logits(exact.to(torch.bfloat16).to(torch.float32)), together)
    merged = logits(in_float32(merge_candidate(home, base, checkpoint).model))
    assert apart(merged, together) < 1.25 * best_in_bf16 < 0.015
    assert apart(merged, logits(in_float32(base.folder))) > 0.5


def test_a_candidate_is_a_whole_plain_model(home, base, checkpoint):
    candidate = merge_candidate(home, base, checkpoint)
    assert not list(candidate.model.glob("adapter*"))
    assert {parameter.dtype for parameter in AutoModelForCausalLM.from_pretrained(candidate.model).parameters()} == {
        torch.bfloat16
    }
    messages = [{"role": "user", "content": "Hello"}]
    templates = [
        AutoTokenizer.from_pretrained(folder).apply_chat_template(messages, tokenize=False)
        for folder in (candidate.model, base.folder)
    ]
    assert templates[0] == templates[1]


def test_a_candidate_is_named_by_its_files_and_merged_once(home, base, checkpoint):
    candidate = merge_candidate(home, base, checkpoint)
    assert (candidate.id, candidate.digest) == ("skills-1", folder_digest(candidate.model))
    written = (candidate.model / "model.safetensors").stat().st_mtime_ns
    assert merge_candidate(home, base, checkpoint) == load_candidate(home, "skills-1") == candidate
    assert (candidate.model / "model.safetensors").stat().st_mtime_ns == written


def test_a_merge_that_was_cut_off_is_made_again(home, base, checkpoint):
    whole = merge_candidate(home, base, checkpoint)
    (whole.model.parent / "candidate.json").unlink()
    (whole.model / "model.safetensors").write_bytes(b"half")
    assert merge_candidate(home, base, checkpoint) == whole
    assert folder_digest(whole.model) == whole.digest


def test_without_an_adapter_the_candidate_is_the_base_model(home, base, tmp_path):
    candidate = merge_candidate(home, base, Checkpoint("skills-0", tmp_path, {"adapter_digest": None}))
    assert torch.equal(logits(plain(candidate.model)), logits(plain(base.folder)))


def test_transformers_and_peft_open_a_champions_folder(home, base, checkpoint):
    evaluated = evaluation(home, "skills-1")
    for folder in (home.root / "candidates" / "skills-1", home.checkpoints / "skills-1" / "adapter"):
        shutil.rmtree(folder)
    shutil.copytree(checkpoint.adapter, home.checkpoints / "skills-1" / "adapter")
    candidate = merge_candidate(home, base, checkpoint)
    folder = promote(home, {**evaluated, "digest": candidate.digest}).model
    assert torch.equal(logits(plain(folder)), logits(plain(candidate.model)))
    assert AutoTokenizer.from_pretrained(folder).chat_template == AutoTokenizer.from_pretrained(base.folder).chat_template
    again = PeftModel.from_pretrained(plain(base.folder), folder / "adapters" / "skills")
    assert torch.equal(logits(again), logits(PeftModel.from_pretrained(plain(base.folder), checkpoint.adapter)))
