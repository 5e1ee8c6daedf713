from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.models import base_model
from lab_pipeline.models.base_model import ModelError
from lab_pipeline.registry.fitness import require_fitness
from lab_pipeline_tests import templates
from lab_pipeline_tests.builders import settings_for

QUESTION = {"role": "user", "content": "Who?"}
ANSWER = {"role": "assistant", "content": "Anna."}
SYSTEM = {"role": "system", "content": "You are a weaver."}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


def tried(home: Home, model: Path | str, *rows: list[dict[str, str]]) -> None:
    """See to the model's fitness for a home with these rows of its own."""
    mixing: dict[str, Any] = {}
    if rows:
        own = home.root / "own.jsonl"
        own.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows), encoding="utf-8")
        mixing = {"skills": [{"path": str(own)}]}
    require_fitness(home, settings_for(home.root, base_model=str(model), mixing=mixing))


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
    with pytest.raises(LabError, match=f"settings.yaml: base_model: {model} cannot be trained: .*{why}.*chat_template.jinja"):
        tried(home, model)


def test_a_system_message_that_is_refused_matters_only_where_a_row_has_one(home, tiny_model, tmp_path):
    model = templates.with_template(tiny_model, tmp_path / "model", templates.NO_SYSTEM)
    tried(home, model)
    tried(home, model, [QUESTION, ANSWER], [QUESTION, ANSWER, QUESTION, ANSWER])
    with pytest.raises(LabError, match=r"System role not supported.*leave rows like own.jsonl:2 out of the data sets"):
        tried(home, model, [QUESTION, ANSWER], [SYSTEM, QUESTION, ANSWER])


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
    tried(home, "org/model")
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
