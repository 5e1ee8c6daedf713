"""A candidate: base model and adapter merged into the bf16 weights that are measured, and shipped if promoted."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import folder_digest, read_json, write_json, written_whole
from lab_pipeline.models.base_model import BaseModel
from lab_pipeline.training.checkpoint import Checkpoint


@dataclass(frozen=True)
class Candidate:
    id: str
    model: Path
    digest: str
    """Hash of the model folder: what was measured is what ships."""


def merge_candidate(home: Home, base: BaseModel, checkpoint: Checkpoint) -> Candidate:
    """The checkpoint merged into the base model's bf16 weights, made once."""
    folder = home.root / "candidates" / checkpoint.id
    if not (folder / "candidate.json").exists():
        shutil.rmtree(folder / "model", ignore_errors=True)
        with written_whole(folder / "model") as scratch:
            _merge(base.folder, checkpoint.adapter, scratch)
        write_json(
            folder / "candidate.json",
            {"id": checkpoint.id, "digest": folder_digest(folder / "model"), "checkpoint": str(checkpoint.folder)},
        )
    return load_candidate(home, checkpoint.id)


def load_candidate(home: Home, candidate_id: str) -> Candidate:
    """The candidate of that id.

    Raises:
        LabError: its merged weights are not there.
    """
    folder = home.root / "candidates" / candidate_id
    if not (folder / "candidate.json").exists():
        raise LabError(f"{folder}: no merged weights of this candidate (`lab-pipeline gc` may have removed them); retune again")
    return Candidate(candidate_id, folder / "model", read_json(folder / "candidate.json")["digest"])


def _merge(base: Path, adapter: Path | None, output: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    model.save_pretrained(output)
    AutoTokenizer.from_pretrained(base).save_pretrained(output)
