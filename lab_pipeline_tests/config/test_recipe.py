from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab_pipeline.config.recipe import SHIPPED, load_recipe, shipped_recipes
from lab_pipeline.config.settings import Settings
from lab_pipeline.core.errors import LabError
from lab_pipeline_tests.builders import edit_yaml


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A recipe file of one's own, equal to the shipped one."""
    path = tmp_path / "own.yaml"
    path.write_text((SHIPPED / "smollm2_135m_cpu.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_loads(name):
    assert load_recipe(name).pack_tokens >= 64


def test_the_default_recipe_is_shipped():
    assert Settings.model_fields["recipe"].default in shipped_recipes()


def test_every_shipped_value_says_what_it_is_or_where_it_is_from():
    for name in shipped_recipes():
        lines = (SHIPPED / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
        assert sum("#" in line for line in lines) > len(lines) / 3


def test_a_recipe_may_be_a_file_of_ones_own(own):
    edit_yaml(own, lambda values: values.update(pack_tokens=128))
    assert load_recipe(str(own)).pack_tokens == 128


@pytest.mark.parametrize(
    ("where", "key", "value"),
    [
        ((), "learning_rates", 1),
        (("knowledge",), "epoch", 3),
        (("lora",), "rank", 0),
        (("skills",), "phase_1_replay", 1.5),
        (("validation",), "share", 0.9),
        (("validation",), "general", -1),
        ((), "quantization", "int8"),
        ((), "packs_per_step", "many"),
    ],
)
def test_an_unknown_key_or_wrong_value_is_refused_by_file_and_key(own, where: tuple[str, ...], key: str, value: Any):
    def change(values: dict[str, Any]) -> None:
        for part in where:
            values = values[part]
        values[key] = value

    edit_yaml(own, change)
    with pytest.raises(LabError, match=re.escape(f"{own}: {'.'.join([*where, key])}: ")):
        load_recipe(str(own))


def test_a_recipe_that_does_not_speak_of_validation_validates_as_the_shipped_one(own):
    shipped = load_recipe(str(own))
    edit_yaml(own, lambda values: values.pop("validation"))
    assert load_recipe(str(own)) == shipped


def test_a_missing_key_is_named(own):
    edit_yaml(own, lambda values: values["knowledge"].pop("epochs"))
    with pytest.raises(LabError, match=re.escape(f"{own}: knowledge.epochs: ")):
        load_recipe(str(own))


def test_a_recipe_that_is_nowhere_is_refused_with_the_shipped_ones(tmp_path):
    missing = str(tmp_path / "missing.yaml")
    with pytest.raises(LabError) as caught:
        load_recipe(missing)
    assert missing in str(caught.value) and "smollm2_135m_cpu" in str(caught.value)


@pytest.mark.parametrize("text", ["lora: [", "- a list", "", "just text", "lora: \x07"])
def test_what_is_no_mapping_is_refused_by_file(own, text):
    own.write_text(text, encoding="utf-8")
    with pytest.raises(LabError, match=re.escape(str(own))):
        load_recipe(str(own))


def test_what_is_no_text_is_refused_by_file(own):
    own.write_bytes(yaml.safe_dump({"lora": "é"}, allow_unicode=True).encode("latin-1"))
    with pytest.raises(LabError, match=re.escape(str(own))):
        load_recipe(str(own))
