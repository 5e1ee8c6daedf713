"""Training a phase where one is: benchmarks need no process of its own, nor a run of Dagster's, to train."""

from __future__ import annotations

from lab_pipeline.config.recipe import Recipe
from lab_pipeline.core.home import Home
from lab_pipeline.core.progress import Say
from lab_pipeline.datasets.dataset import Dataset
from lab_pipeline.models.base_model import BaseModel
from lab_pipeline.training.checkpoint import (
    Checkpoint,
    finish_checkpoint,
    load_checkpoint,
    pass_through,
    prepare_checkpoint,
    read_spec,
)
from lab_pipeline.training.train import train


def trained(
    home: Home, base: BaseModel, dataset: Dataset, before: Checkpoint | None, recipe: Recipe, seed: int, say: Say
) -> Checkpoint:
    """The phase's checkpoint, trained unless it is there."""
    checkpoint, spec_path = prepare_checkpoint(home, base, dataset, before, recipe, seed)
    if checkpoint is None and not dataset.rows:
        return pass_through(dataset, before, spec_path)
    if checkpoint is None:
        spec = read_spec(spec_path)
        assert train(spec, say)
        finish_checkpoint(spec)
        checkpoint = load_checkpoint(spec_path.parent)
    assert checkpoint
    return checkpoint
