"""Checkpoint folders: adapter, spec, report and `meta.json`, whose presence says that the checkpoint is complete."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lab_pipeline.config.recipe import Recipe
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import digest, folder_digest, read_json, write_json
from lab_pipeline.datasets.dataset import Dataset
from lab_pipeline.models.base_model import BaseModel
from lab_pipeline.training.failure import failure_file
from lab_pipeline.training.train import TrainingReport, TrainingSpec

_VERSIONS = ("torch", "transformers", "peft", "bitsandbytes")


@dataclass(frozen=True)
class Checkpoint:
    """A phase's finished adapter."""

    id: str
    folder: Path
    meta: dict[str, Any]

    @property
    def adapter(self) -> Path | None:
        """Folder of the adapter; None where the phase had nothing to learn and the model stays as it was."""
        return Path(self.folder / "adapter") if self.meta["adapter_digest"] else None

    @property
    def report(self) -> dict[str, Any]:
        return read_json(self.folder / "report.json")


def checkpoint_id(base: BaseModel, dataset: Dataset, before: str | None, recipe: Recipe, seed: int) -> str:
    """Name of the checkpoint that these inputs give: equal inputs, one checkpoint."""
    common = recipe.model_dump(exclude={"knowledge", "skills"})
    phase = recipe.phase(dataset.phase).model_dump()
    return f"{dataset.phase}-{digest([base.digest, dataset.digest, before, common, phase, seed])}"


def prepare_checkpoint(
    home: Home, base: BaseModel, dataset: Dataset, before: Checkpoint | None, recipe: Recipe, seed: int
) -> tuple[Checkpoint | None, Path]:
    """The checkpoint if it is finished already, and the path of the spec from which to train it."""
    name = checkpoint_id(base, dataset, before.id if before else None, recipe, seed)
    folder = home.checkpoints / name
    spec = {
        "phase": dataset.phase,
        "base_model": str(base.folder),
        "dataset": str(dataset.path),
        "continued": str(before.adapter) if before and before.adapter else None,
        "recipe": recipe.model_dump(),
        "seed": seed,
        "output": str(folder),
    }
    finished = load_checkpoint(folder)
    if finished is None:
        write_json(folder / "spec.json", spec)
        failure_file(folder).unlink(missing_ok=True)
    return finished, folder / "spec.json"


def pass_through(home: Home, dataset: Dataset, before: Checkpoint | None, spec_path: Path) -> Checkpoint:
    """The checkpoint of a phase without data: the one before it, under a name of its own."""
    folder = spec_path.parent
    inherited = before.adapter if before else None
    if inherited:
        shutil.copytree(inherited, folder / "adapter", dirs_exist_ok=True)
    write_json(folder / "report.json", asdict(TrainingReport()))
    _write_meta(folder, dataset.digest, inherited is not None)
    finished = load_checkpoint(folder)
    assert finished
    return finished


def read_spec(path: Path) -> TrainingSpec:
    return TrainingSpec(**read_json(path))


def finish_checkpoint(spec: TrainingSpec) -> None:
    """Write what marks a checkpoint as complete, last of all, and drop the optimizer's states."""
    folder = Path(spec.output)
    _write_meta(folder, Path(spec.dataset).stem.removeprefix(f"{spec.phase}-"), trained=True)
    shutil.rmtree(folder / "resume", ignore_errors=True)


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint in a folder, None if it is not complete."""
    meta = folder / "meta.json"
    return Checkpoint(folder.name, folder, read_json(meta)) if meta.exists() else None


def _write_meta(folder: Path, dataset: str, trained: bool) -> None:
    spec = read_json(folder / "spec.json")
    write_json(
        folder / "meta.json",
        {
            "checkpoint": folder.name,
            "adapter_digest": folder_digest(folder / "adapter") if trained else None,
            "base_model": spec["base_model"],
            "dataset": dataset,
            "continued": spec["continued"],
            "recipe": spec["recipe"],
            "seed": spec["seed"],
            "versions": {package: version(package) for package in _VERSIONS},
            "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )
