"""Merge base model and adapter into a candidate: bf16 weights that are evaluated and, if promoted, shipped."""

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
    """A merged model in the folder `model`, to be evaluated and promoted; its id is that of its checkpoint."""

    id: str
    model: Path
    digest: str
    """Hash of the model folder's files, by which a promotion checks that it ships the files that were measured."""


def merge_candidate(home: Home, base: BaseModel, checkpoint: Checkpoint) -> Candidate:
    """Merge a checkpoint's adapter into the base model's bf16 weights, and store the model with its tokenizer in the home.

    Without an adapter, the candidate is the base model. If the candidate is stored already, it is only loaded; what an
    interrupted merge left of it is deleted.
    """
    folder = home.root / "candidates" / checkpoint.id
    if not (folder / "candidate.json").exists():
        shutil.rmtree(folder / "model", ignore_errors=True)
        with written_whole(folder / "model") as scratch:
            model = load_model(base.folder, "cpu")  # not on a GPU: the merged weights must not depend on the machine
            if checkpoint.adapter:
                from peft import PeftModel

                model = PeftModel.from_pretrained(model, checkpoint.adapter).merge_and_unload()
            model.save_pretrained(scratch)
            load_tokenizer(base.folder).save_pretrained(scratch)
        found = {"id": checkpoint.id, "digest": folder_digest(folder / "model"), "checkpoint": str(checkpoint.folder)}
        write_json(folder / "candidate.json", found)
    return load_candidate(home, checkpoint.id)


def load_candidate(home: Home, candidate_id: str) -> Candidate:
    """Return the candidate of that id that the home stores.

    Raises:
        LabError: its merged weights are missing.
    """
    folder = home.root / "candidates" / candidate_id
    if not (folder / "candidate.json").exists():
        raise LabError(f"{folder}: no merged weights of this candidate (`lab-pipeline gc` may have removed them); retune again")
    return Candidate(candidate_id, folder / "model", read_json(folder / "candidate.json")["digest"])
