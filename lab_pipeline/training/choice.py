"""Choose a home's training recipe: the one that its settings name, else the shipped one that fits base model and GPUs."""

from __future__ import annotations

from dataclasses import dataclass

from lab_pipeline.config.deployment import deployment
from lab_pipeline.config.recipe import Recipe, fitting_recipe, load_recipe
from lab_pipeline.config.settings import Settings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.machine import gpus_gib
from lab_pipeline.models.base_model import known_parameters


@dataclass(frozen=True)
class Choice:
    """A recipe, and why it is this one."""

    name: str
    recipe: Recipe
    why: str


def choose_recipe(home: Home, settings: Settings) -> Choice:
    """Return the recipe to train the home's model with.

    Raises:
        LabError: The named recipe is wrong; or none is named, and none fits, the base model's size is not known yet, or the
            choice could differ between the pods of a cluster.
    """
    if settings.recipe:
        return Choice(settings.recipe, load_recipe(settings.recipe), "the settings name it")
    size = known_parameters(home, settings.base_model)
    if size is None:
        raise LabError(
            f"recipe: none is named, and the size of {settings.base_model} is not known before it is downloaded; name one in "
            "settings.yaml, or run lab-pipeline train-plan, which downloads it"
        )
    gpus = gpus_gib()
    name = fitting_recipe(size, gpus)
    if deployment() == "k8s" and load_recipe(name).needs_gpu:
        raise LabError(f"recipe: name one in settings.yaml, such as {name}: on a cluster, only some pods see a GPU")
    seen = ", ".join(f"{gib:.0f} GiB" for gib in gpus) or "none"
    return Choice(name, load_recipe(name), f"it fits {size / 1e9:.2f} billion parameters and these GPUs: {seen}")
