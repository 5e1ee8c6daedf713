"""Merge base model and adapter into a candidate: bf16 weights that are evaluated and, if promoted, shipped."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.progress import Say
from lab_pipeline.core.storage import folder_digest, read_json, write_json, written_whole
from lab_pipeline.models.base_model import BaseModel
from lab_pipeline.models.loader import load_model, load_tokenizer
from lab_pipeline.models.template import stop_tokens
from lab_pipeline.training.checkpoint import Checkpoint

_LEAST_KEPT = 0.9


@dataclass(frozen=True)
class Candidate:
    """A merged model in the folder `model`, to be evaluated and promoted; its id is that of its checkpoint."""

    id: str
    model: Path
    digest: str
    """Hash of the model folder's files, by which a promotion checks that it ships the files that were measured."""
    update_kept: float | None = None
    """Share of the adapter's update that is left in the bf16 weights, see `_merge`; None without an adapter."""


def merge_candidate(home: Home, base: BaseModel, checkpoint: Checkpoint, say: Say = lambda text: None) -> Candidate:
    """Merge a checkpoint's adapter into the base model's bf16 weights, and store the model with its tokenizer in the home.

    Without an adapter, the candidate is the base model. If the candidate is stored already, it is only loaded; what an
    interrupted merge left of it is deleted. What rounding takes of the adapter's update is told to `say`.
    """
    folder = home.root / "candidates" / checkpoint.id
    if not (folder / "candidate.json").exists():
        shutil.rmtree(folder / "model", ignore_errors=True)
        kept = None
        with written_whole(folder / "model") as scratch:
            # not on a GPU: the merged weights must not depend on the machine
            model = load_model(base.folder, "cpu", as_stored=True)
            if checkpoint.adapter:
                model, kept = _merge(model, checkpoint.adapter)
            tokenizer = load_tokenizer(base.folder)
            stops = stop_tokens(model, tokenizer)  # for servers, which do not know what the template ends a turn with
            model.generation_config.eos_token_id = stops if stops[1:] else stops[0]
            model.save_pretrained(scratch)
            tokenizer.save_pretrained(scratch)
        found = {"id": checkpoint.id, "digest": folder_digest(folder / "model"), "update_kept": kept}
        write_json(folder / "candidate.json", found)
    candidate = load_candidate(home, checkpoint.id)
    if candidate.update_kept is not None:
        remedy = "" if candidate.update_kept >= _LEAST_KEPT else ": the weights changed too little; train longer or faster"
        say(f"{candidate.update_kept:.1%} of what the adapter learned is left after rounding to bf16{remedy}")
    return candidate


def _merge(model: Any, adapter: Path) -> tuple[Any, float]:
    """Add an adapter to the weights of a bf16 model in float32, and round each weight once; return the model.

    Also return which share of the update rounding leaves: what was added to the weights, projected on what should have been.
    bf16 has 8 significant bits, so a weight that would change by less than 0.2 % may stay as it was.
    """
    import torch
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer
    from peft.tuners.trainable_tokens import TrainableTokensLayer

    adapted = PeftModel.from_pretrained(model, adapter)
    wanted = kept = torch.zeros((), dtype=torch.float64)
    for module in adapted.modules():
        if isinstance(module, LoraLayer):
            layer: Any = module
            weight = layer.get_base_layer().weight
            before, update = weight.data.float(), layer.get_delta_weight("default").detach().float()
            weight.data = (before + update).to(weight.dtype)
            wanted = wanted + update.double().square().sum()
            kept = kept + ((weight.data.float() - before) * update).double().sum()
        elif isinstance(module, TrainableTokensLayer):
            module.merge()  # its rows replace those of new tokens
    return adapted.unload(), float(kept / wanted) if wanted else 1.0


def load_candidate(home: Home, candidate_id: str) -> Candidate:
    """Return the candidate of that id that the home stores.

    Raises:
        LabError: its merged weights are missing.
    """
    folder = home.root / "candidates" / candidate_id
    if not (folder / "candidate.json").exists():
        raise LabError(f"{folder}: no merged weights of this candidate (`lab-pipeline gc` may have removed them); retune again")
    stored = read_json(folder / "candidate.json")
    return Candidate(candidate_id, folder / "model", stored["digest"], stored.get("update_kept"))
