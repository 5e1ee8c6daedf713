from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab_pipeline.config.recipe import SHIPPED, fitting_recipe, load_recipe, shipped_recipes
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


@pytest.mark.parametrize(
    ("billions", "gpus", "name"),
    [
        (0.135, [], "smollm2_135m_cpu"),
        (0.135, [80.0] * 8, "smollm2_135m_cpu"),
        (1.2, [22.5], "qlora_3b_24gb"),
        (3.2, [79.6], "qlora_3b_24gb"),
        (7.2, [24.0], "qlora_8b_24gb"),
        (8.0, [24.0] * 4, "qlora_8b_24gb"),
        (8.0, [79.6], "qlora_8b_80gb"),
        (8.0, [79.6] * 4, "qlora_8b_80gb"),
        (8.0, [79.6] * 8, "qlora_8b_8x80gb"),
    ],
)
def test_a_recipe_is_chosen_by_model_size_and_gpus(billions, gpus, name):
    assert fitting_recipe(round(billions * 1e9), gpus) == name


@pytest.mark.parametrize(("billions", "gpus"), [(70.0, [79.6] * 8), (8.0, []), (8.0, [11.0]), (1.2, [])])
def test_where_no_recipe_fits_one_is_to_be_named(billions, gpus):
    with pytest.raises(LabError, match=rf"no shipped one fits a base model of {billions} billion parameters and these GPUs: "):
        fitting_recipe(round(billions * 1e9), gpus)


def test_what_a_recipe_is_made_for_and_options_left_out_are_not_part_of_its_identity(own):
    recipe = load_recipe(str(own))
    edit_yaml(own, lambda values: values.pop("fits"))
    assert load_recipe(str(own)).identity == recipe.identity
    assert not recipe.identity.keys() & {"fits", "optimizer", "liger", "neftune_alpha", "attn_implementation"}
    edit_yaml(own, lambda values: values.update(neftune_alpha=5))
    assert load_recipe(str(own)).identity != recipe.identity


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
        ((), "parallel", "fsdp"),
        (("validation",), "share", 0.9),
        (("validation",), "general", -1),
        ((), "quantization", "int8"),
        ((), "packs_per_step", "many"),
        ((), "optimizer", "sgd"),
        ((), "neftune_alpha", -1),
        ((), "attn_implementation", "fastest"),
        (("fits",), "gpus", 0),
        (("lora",), "rank_stabilized", "perhaps"),
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
