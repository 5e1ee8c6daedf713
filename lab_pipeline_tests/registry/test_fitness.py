from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import MambaConfig

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import read_json, write_json
from lab_pipeline.models import base_model
from lab_pipeline.models.base_model import ModelError, fetch_model
from lab_pipeline.registry import fitness
from lab_pipeline.registry.fitness import check_fitness, require_fitness
from lab_pipeline_tests import templates
from lab_pipeline_tests.builders import settings_for

QUESTION = {"role": "user", "content": "Who?"}
ANSWER = {"role": "assistant", "content": "Anna."}
SYSTEM = {"role": "system", "content": "You are a weaver."}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


def tried(home: Home, model: Path | str, *rows: list[dict[str, str]], **settings: Any) -> list[str]:
    """See to the model's fitness for a home with these rows of its own; return what is special of it."""
    mixing: dict[str, Any] = {}
    if rows:
        own = home.root / "own.jsonl"
        own.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows), encoding="utf-8")
        mixing = {"skills": [{"path": str(own)}]}
    return check_fitness(home, settings_for(home.root, base_model=str(model), mixing=mixing, **settings))


@pytest.mark.parametrize(
    "template", [templates.OWN_END, templates.EOS_AT_THE_END, templates.EMPTY_THOUGHT, templates.SYSTEM_MOVED]
)
def test_templates_of_many_kinds_are_fit(home, tiny_model, tmp_path, template):
    model = templates.with_template(tiny_model, tmp_path / "model", template, pad_token=None)
    tried(home, model)
    tried(home, model, [QUESTION, ANSWER])
    tried(home, model, [SYSTEM, QUESTION, ANSWER])
    assert not home.models.exists() or not list(home.models.iterdir())


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (None, "no chat template"),
        (templates.OPEN_THOUGHT, "rewrites earlier turns"),
        ("{% for m in messages if m.role == 'user' %}{{ m.content }}<|im_end|>{% endfor %}", "drops an answer"),
        ("{{ raise_exception('not today') }}", "not today"),
    ],
)
def test_a_template_that_no_row_can_be_encoded_with_is_refused_with_setting_and_mend(home, tiny_model, tmp_path, template, why):
    model = templates.with_template(tiny_model, tmp_path / "model", template)
    mend = "set chat_template to granite, chatml or a Jinja file of your own"
    with pytest.raises(LabError, match=f"settings.yaml: base_model: {model} cannot be trained: .*{why}.*{mend}"):
        tried(home, model)
    assert tried(home, model, chat_template="chatml") == []
    assert tried(home, model, chat_template="granite") == ["3 tokens of the chat template are new and will be trained"]


def test_a_system_message_that_is_refused_matters_only_where_a_row_has_one(home, tiny_model, tmp_path):
    model = templates.with_template(tiny_model, tmp_path / "model", templates.NO_SYSTEM)
    with_system = [SYSTEM, QUESTION, ANSWER]
    tried(home, model, with_system)
    tried(home, model, with_system, system_message="drop")
    tried(home, model, system_message="refuse")
    tried(home, model, [QUESTION, ANSWER], [QUESTION, ANSWER, QUESTION, ANSWER], system_message="refuse")
    mend = "set system_message to merge or drop, leave rows like own.jsonl:2 out of the data sets"
    with pytest.raises(LabError, match=f"system_message is set to refuse.*{mend}"):
        tried(home, model, [QUESTION, ANSWER], with_system, system_message="refuse")


def test_the_models_own_template_is_tried_whatever_it_was_fitted_to_before(home, tiny_model, tmp_path):
    model = templates.with_template(tiny_model, tmp_path / "model", templates.NO_SYSTEM)
    fetch_model(home, str(model))
    with pytest.raises(LabError, match="system_message is set to refuse"):
        tried(home, model, [SYSTEM, QUESTION, ANSWER], system_message="refuse")


def with_config(model: Path, folder: Path, **changed: Any) -> Path:
    shutil.copytree(model, folder)
    write_json(folder / "config.json", {**read_json(model / "config.json"), **changed})
    return folder


def test_an_architecture_is_refused_by_name_before_it_is_loaded(home, tiny_model, tmp_path):
    unknown = with_config(tiny_model, tmp_path / "unknown", model_type="unheard-of")
    with pytest.raises(LabError, match=f"base_model: {unknown} cannot be trained: .*unheard-of"):
        tried(home, unknown)
    short = with_config(tiny_model, tmp_path / "short", max_position_embeddings=128)
    with pytest.raises(LabError, match="rows of 512 tokens: it has 128 positions; take a recipe with pack_tokens of 128"):
        tried(home, short)


def test_what_is_special_of_an_architecture_is_said(home, tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "mamba")
    MambaConfig(num_hidden_layers=2).save_pretrained(folder)
    assert tried(home, folder) == ["rows of one pack would see each other, so they are computed one by one"]
    assert tried(home, tiny_model, packing=False) == ["its rows are computed one by one, as packing is off"]


def test_an_architecture_that_takes_no_adapter_is_refused(home, tiny_model, monkeypatch):
    def none(*_: Any) -> None:
        raise ValueError("Target modules not found")

    monkeypatch.setattr("lab_pipeline.registry.fitness.with_adapter", none)
    with pytest.raises(LabError, match=r"it takes no adapter \(ValueError: Target modules not found\)"):
        tried(home, tiny_model)


def test_weights_that_were_cut_off_are_refused_by_file(home, tiny_model, tmp_path):
    cut = shutil.copytree(tiny_model, tmp_path / "cut")
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(LabError, match=f"{weights}: cut short, .*fetch or copy it again"):
        tried(home, cut)


def test_an_answer_that_nothing_ends_could_not_be_taught_to_stop(home, tiny_model, tmp_path):
    plain = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    )
    model = templates.with_template(tiny_model, tmp_path / "model", plain)
    tried(home, model)
    model = templates.with_template(tiny_model, tmp_path / "endless", plain, eos_token=None)
    with pytest.raises(LabError, match="token that ends an answer"):
        tried(home, model)


def test_of_a_hub_id_only_the_tokenizer_is_downloaded(home, tiny_model, tmp_path, monkeypatch):
    asked = []

    def snapshot_download(name: str, allow_patterns: list[str]) -> str:
        asked.extend(allow_patterns)
        return str(shutil.copytree(tiny_model, tmp_path / "hub", ignore=shutil.ignore_patterns("*.safetensors")))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    tried(home, "org/model", recipe="smollm2_135m_cpu")  # without weights, none can be chosen
    assert "*.json" in asked and "*.safetensors" not in asked


def test_a_model_that_is_nowhere_or_has_no_tokenizer_is_refused_by_name(home, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="nobody/nothing-at-all"):
        tried(home, "nobody/nothing-at-all")
    bare = shutil.copytree(tiny_model, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*", "*.jinja"))
    with pytest.raises(LabError, match=f"base_model: {bare} has no tokenizer"):
        tried(home, bare)


def test_the_packaged_model_needs_not_be_unpacked_to_be_known_as_fit(home, monkeypatch):
    monkeypatch.setattr(base_model, "unpack_gguf", None)
    tried(home, "packaged")


def test_a_model_found_fit_is_checked_again_only_if_it_or_what_is_asked_of_it_changed(home, tiny_model, tmp_path, monkeypatch):
    model, checks = shutil.copytree(tiny_model, tmp_path / "model"), []
    monkeypatch.setattr(fitness, "check_fitness", lambda *of: checks.append(of) or check_fitness(*of))

    def checked(**settings: Any) -> bool:
        before, asked = len(checks), settings_for(home.root, base_model=str(model), **settings)
        assert require_fitness(home, asked) == check_fitness(home, asked)
        return len(checks) > before

    assert checked() and not checked()
    assert checked(packing=False) and not checked(packing=False)
    assert checked(chat_template="chatml") and not checked()
    config = read_json(model / "config.json")
    write_json(model / "config.json", {**config, "num_hidden_layers": 1})
    assert checked() and not checked()
    monkeypatch.setattr(fitness, "_CHECK", 2)
    assert checked()


def test_a_misfit_a_cut_off_file_and_rows_of_ones_own_are_found_each_time(home, tiny_model, tmp_path):
    model = templates.with_template(tiny_model, tmp_path / "model", templates.NO_SYSTEM)
    own = home.root / "own.jsonl"
    asked = settings_for(home.root, base_model=str(model), system_message="refuse", mixing={"skills": [{"path": str(own)}]})
    own.write_text(json.dumps({"messages": [QUESTION, ANSWER]}) + "\n", encoding="utf-8")
    require_fitness(home, asked)
    own.write_text(json.dumps({"messages": [SYSTEM, QUESTION, ANSWER]}) + "\n", encoding="utf-8")
    for _ in range(2):
        with pytest.raises(LabError, match="own.jsonl"):
            require_fitness(home, asked)
    plain = settings_for(home.root, base_model=str(model))
    require_fitness(home, plain)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(LabError, match="cut short"):
        require_fitness(home, plain)
