"""Export a champion so that it opens elsewhere: as a folder for the Hugging Face hub, a GGUF file, or an OCI image layout.

All three hold the measured weights and the same documents: card, lineage and the base model's licence.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import read_json, write_json, written_whole
from lab_pipeline.models.base_model import licence_texts
from lab_pipeline.registry.champion import BESIDE, Champion, find_champion
from lab_pipeline.registry.gguf import convert, converter
from lab_pipeline.registry.oci import write_layout

Format = Literal["hf", "gguf", "oci"]


def export_model(home: Home, name: str, folder: Path, format: Format, llama_cpp: Path | None = None) -> Champion:
    """Write a champion to a new or empty folder, and return the champion.

    Args:
        name: 'champion', or the id of a present or past champion.
        llama_cpp: for *gguf*, see `converter`.

    Raises:
        LabError: the folder is not empty, there is no such champion, its files are not those that were measured, an earlier
            release promoted it without a lineage, or llama.cpp's converter is missing or refuses the model.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise LabError(f"{folder}: exists already and is not an empty folder; name a new one for the export")
    champion = find_champion(home, name)
    if not champion.verified:
        raise LabError(f"{champion.model}: its files are not those that were measured; roll back, or retune again")
    if not (champion.model / "lineage.json").exists():
        raise LabError(f"{champion.id}: an earlier release promoted it without card and lineage; export a later champion")
    script = converter(home, llama_cpp) if format == "gguf" else None
    with written_whole(folder) as scratch:
        if script:
            scratch.mkdir()
            convert(script, champion.model, scratch / f"{champion.id}.gguf")
            _write_documents(home, champion, scratch)
        elif format == "hf":
            _write_hub_folder(home, champion, scratch)
        else:
            files = scratch.with_name("files")  # removed with the rest
            _write_hub_folder(home, champion, files)
            write_layout(files, scratch, champion.id)
    return champion


def _write_hub_folder(home: Home, champion: Champion, folder: Path) -> None:
    """Copy the champion's folder; no links, for who edits the copy must not change what was measured."""
    shutil.copytree(champion.model, folder)
    _write_documents(home, champion, folder)
    lineage = read_json(folder / "lineage.json")
    for adapter in folder.glob("adapters/*/adapter_config.json"):  # where peft wrote the path of the base model's folder
        base = lineage["base_model_id"] or lineage["base_model"]
        write_json(adapter, {**read_json(adapter), "base_model_name_or_path": base})


def _write_documents(home: Home, champion: Champion, folder: Path) -> None:
    for each in BESIDE:
        if (champion.model / each).is_file():
            shutil.copy2(champion.model / each, folder / each)
    for file, text in licence_texts(home, read_json(champion.model / "lineage.json")["base_model"]).items():
        (folder / file).write_text(text, encoding="utf-8")
