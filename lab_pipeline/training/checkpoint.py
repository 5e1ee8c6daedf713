"""Keep checkpoint folders: adapter, spec, report, and `meta.json`, whose presence marks a checkpoint as complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
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

LEFT_BY_TRAINING = ("resume*", "tokens-*")
"""Folders in a checkpoint folder from which a training resumes: saved states and encoded rows."""

_PATHS = ("base_model", "dataset", "continued", "output")
"""Fields of a spec that hold paths."""

_VERSIONS = ("torch", "transformers", "peft", "bitsandbytes")


@dataclass(frozen=True)
class Checkpoint:
    """The finished result of a training phase: an adapter, or none if there was nothing to learn."""

    id: str
    folder: Path
    meta: Mapping[str, Any]
    """Content of `meta.json`: hash of the adapter, what it was trained from, library versions, and when it was finished."""

    @property
    def adapter(self) -> Path | None:
        """Folder of the adapter; None if no phase so far had anything to learn, so that the base model stays as it is."""
        return self.folder / "adapter" if self.meta["adapter_digest"] else None

    @property
    def report(self) -> TrainingReport:
        return TrainingReport(**read_json(self.folder / "report.json"))


def checkpoint_id(base: BaseModel, dataset: Dataset, before: str | None, recipe: Recipe, seed: int) -> str:
    """Return the id of the checkpoint that these inputs give: the phase and a hash of the inputs.

    Of the recipe, only the part for this phase and the part for both phases count.

    Args:
        before: id of the phase-1 checkpoint that this phase goes on from; None in phase 1.
    """
    common = {name: value for name, value in recipe.identity.items() if name not in ("knowledge", "skills")}
    phase = recipe.phase(dataset.phase).model_dump()
    return f"{dataset.phase}-{digest([base.digest, dataset.digest, before, common, phase, seed])}"


def prepare_checkpoint(
    home: Home, base: BaseModel, dataset: Dataset, before: Checkpoint | None, recipe: Recipe, seed: int
) -> tuple[Checkpoint | None, Path]:
    """Return the checkpoint of these inputs (None if it is not finished), and the path of its `spec.json`.

    If it is not finished, write the spec, from which the phase can be trained, and delete the `failure_file` of an earlier try.
    """
    name = checkpoint_id(base, dataset, before.id if before else None, recipe, seed)
    folder = home.checkpoints / name
    spec = TrainingSpec(
        phase=dataset.phase,
        base_model=os.path.relpath(base.folder, folder),
        base_identity=base.identity,
        dataset=os.path.relpath(dataset.path, folder),
        continued=os.path.relpath(before.adapter, folder) if before and before.adapter else None,
        recipe=recipe.model_dump(),
        seed=seed,
        output=".",
    )
    finished = load_checkpoint(folder)
    if finished is None:
        write_json(folder / "spec.json", asdict(spec))
        failure_file(folder).unlink(missing_ok=True)
    return finished, folder / "spec.json"


def pass_through(dataset: Dataset, before: Checkpoint | None, spec_path: Path) -> Checkpoint:
    """Finish and return the checkpoint of a phase that trains nothing; its adapter is a copy of the one of `before`, if any.

    The checkpoint gets an empty report. Its `spec.json` must exist already, at `spec_path`.
    """
    folder = spec_path.parent
    inherited = before.adapter if before else None
    if inherited:
        shutil.copytree(inherited, folder / "adapter", dirs_exist_ok=True)
    write_json(folder / "report.json", asdict(TrainingReport()))
    return _finished(folder, dataset.digest, trained=inherited is not None)


def read_spec(path: Path) -> TrainingSpec:
    """Read a spec, and make its paths absolute."""
    stored, folder = read_json(path), path.absolute().parent
    # by their text: the system would take `..` behind a link to another disk for a folder of that disk
    paths = {name: os.path.normpath(folder / stored[name]) for name in _PATHS if stored[name]}
    return TrainingSpec(**{**stored, **paths})


def finish_checkpoint(spec: TrainingSpec) -> None:
    """Write the `meta.json` that marks a trained checkpoint as complete, and remove what only a resume needs."""
    folder = Path(spec.output)
    _finished(folder, Path(spec.dataset).stem.removeprefix(f"{spec.phase}-"), trained=True)
    for pattern in LEFT_BY_TRAINING:
        for states in folder.glob(pattern):
            shutil.rmtree(states, ignore_errors=True)


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the checkpoint in a folder; None if it is not complete, that is, has no `meta.json`."""
    meta = folder / "meta.json"
    return Checkpoint(folder.name, folder, read_json(meta)) if meta.exists() else None


def _finished(folder: Path, dataset: str, trained: bool) -> Checkpoint:
    spec = read_spec(folder / "spec.json")
    meta = {
        "checkpoint": folder.name,
        "adapter_digest": folder_digest(folder / "adapter") if trained else None,
        "base_model": spec.base_identity,
        "dataset": dataset,  # its digest
        "continued": Path(spec.continued).parent.name if spec.continued else None,  # the checkpoint's id
        "recipe": spec.recipe,
        "seed": spec.seed,
        "versions": {package: version(package) for package in _VERSIONS},
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(folder / "meta.json", meta)
    return Checkpoint(folder.name, folder, meta)
