"""Each shipped recipe is tried on a tiny shape, and each option does what it is for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lab_pipeline.config.recipe import load_recipe, shipped_recipes
from lab_pipeline.config.settings import Settings, TaxonomySettings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.training import choice
from lab_pipeline.training.choice import choose_recipe
from lab_pipeline.training.train import train
from lab_pipeline_tests.training.runs import recipe, rows_to_validate_on, training_spec, twelve_rows


@pytest.mark.parametrize("name", shipped_recipes())
@pytest.mark.parametrize("phase", ["knowledge", "skills"])
def test_every_shipped_recipe_trains_a_tiny_model(tiny_model, tmp_path, name, phase):
    wanted = load_recipe(name)
    phases = {each: getattr(wanted, each).model_copy(update={"epochs": 1}) for each in ("knowledge", "skills")}
    rows = [*twelve_rows()[:4], *rows_to_validate_on()]
    spec = training_spec(tmp_path / "run", tiny_model, rows, wanted.model_copy(update=phases), phase=phase)
    report = train(spec, lambda text: None)
    assert report and report.final_loss and report.steps == 1


@pytest.mark.parametrize(
    "option",
    [{"optimizer": "adamw_torch_fused"}, {"neftune_alpha": 5.0}, {"attn_implementation": "eager"}, {"rank_stabilized": True}],
)
def test_an_option_trains_and_changes_the_result(tiny_model, tmp_path, option: dict[str, Any]):
    lora = {"rank": 16, "alpha": 16, "rank_stabilized": option.get("rank_stabilized")}
    others = {name: value for name, value in option.items() if name != "rank_stabilized"}
    plain = training_spec(tmp_path / "plain", tiny_model, twelve_rows(), recipe(epochs=1, lora={"rank": 16, "alpha": 16}))
    changed = training_spec(tmp_path / "changed", tiny_model, twelve_rows(), recipe(epochs=1, lora=lora, **others))
    assert train(plain, lambda text: None) and train(changed, lambda text: None)
    one, other = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("plain", "changed"))
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_small_steps_are_lost_in_bf16_and_not_in_float32(tiny_model, tmp_path, in_bf16):
    """At 1e-6, the end of a cosine, AdamW's steps are below half the distance between neighbouring bf16 weights."""
    moved = {}
    for dtype in ("float32", "bfloat16"):
        folders = []
        for rate in (1e-6, 1e-12):  # the latter leaves the adapter as it began
            phase = {"epochs": 1, "learning_rate": rate}
            wanted = recipe(lora={"rank": 4, "alpha": 8, "dtype": dtype}, knowledge=phase)
            folders.append(tmp_path / f"{dtype}-{rate}")
            assert train(training_spec(folders[-1], tiny_model, twelve_rows(), wanted), lambda text: None)
        one, other = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in folders)
        started = [name for name in one if "lora_A" in name]  # B begins at zero, around which bf16 is fine
        moved[dtype] = sum((one[name] != other[name]).sum() for name in started) / sum(one[name].numel() for name in started)
    assert moved["bfloat16"] < 0.05 and moved["float32"] > 0.9


def settings(model: str | Path, name: str | None = None) -> Settings:
    return Settings(taxonomy=TaxonomySettings(path="."), base_model=str(model), recipe=name)


def test_the_recipe_of_a_home_is_the_named_one_else_one_that_fits(tiny_model, tmp_path, monkeypatch):
    home = Home.open(tmp_path)
    monkeypatch.setattr(choice, "gpus_gib", lambda: [24.0])
    assert choose_recipe(home, settings(tiny_model, "lab_stacked")).name == "lab_stacked"
    chosen = choose_recipe(home, settings(tiny_model))
    assert (chosen.name, chosen.why) == ("smollm2_135m_cpu", "it fits 0.01 billion parameters and these GPUs: 24 GiB")
    assert choose_recipe(home, settings("packaged")).name == "smollm2_135m_cpu"
    with pytest.raises(LabError, match="none is named, and the size of org/model is not known before it is downloaded"):
        choose_recipe(home, settings("org/model"))


def test_on_a_cluster_a_choice_that_pods_could_make_differently_is_refused(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "gpus_gib", lambda: [24.0])
    monkeypatch.setenv("LAB_DEPLOYMENT", "k8s")
    assert choose_recipe(Home.open(tmp_path), settings(tiny_model)).name == "smollm2_135m_cpu"
    monkeypatch.setattr(choice, "known_parameters", lambda home, name: 3_000_000_000)
    with pytest.raises(LabError, match="recipe: name one in settings.yaml, such as qlora_3b_24gb: on a cluster"):
        choose_recipe(Home.open(tmp_path), settings(tiny_model))
