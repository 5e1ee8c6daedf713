"""Merge base model and adapter into a candidate: the bf16 weights that are measured, and shipped if promoted."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import folder_digest, read_json, write_json, written_whole
from lab_pipeline.models.base_model import BaseModel
from lab_pipeline.models.loader import load_model, load_tokenizer
from lab_pipeline.training.checkpoint import Checkpoint


@dataclass(frozen=True)
class Candidate:
    """A merged model that may be evaluated and promoted."""

    id: str
    model: Path
    digest: str
    """Hash of the model folder, which proves that the shipped files are the measured ones."""


def merge_candidate(home: Home, base: BaseModel, checkpoint: Checkpoint) -> Candidate:
    """Merge a checkpoint into the base model's bf16 weights, once."""
    from peft import PeftModel

    folder = home.root / "candidates" / checkpoint.id
    if not (folder / "candidate.json").exists():
        shutil.rmtree(folder / "model", ignore_errors=True)
        with written_whole(folder / "model") as scratch:
            model = load_model(base.folder, "cpu")  # so that the merged weights do not depend on the machine
            if checkpoint.adapter:
                model = PeftModel.from_pretrained(model, checkpoint.adapter).merge_and_unload()
            model.save_pretrained(scratch)
            load_tokenizer(base.folder).save_pretrained(scratch)
        found = {"id": checkpoint.id, "digest": folder_digest(folder / "model"), "checkpoint": str(checkpoint.folder)}
        write_json(folder / "candidate.json", found)
    return load_candidate(home, checkpoint.id)


def load_candidate(home: Home, candidate_id: str) -> Candidate:
    """Load the candidate of that id.

    Raises:
        LabError: its merged weights are missing.
    """
    folder = home.root / "candidates" / candidate_id
    if not (folder / "candidate.json").exists():
        raise LabError(f"{folder}: no merged weights of this candidate (`lab-pipeline gc` may have removed them); retune again")
    return Candidate(candidate_id, folder / "model", read_json(folder / "candidate.json")["digest"])
