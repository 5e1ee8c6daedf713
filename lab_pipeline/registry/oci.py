"""Store a model folder as an OCI image layout, as the CNCF ModelPack specification puts models into OCI registries.

Each file is a layer as it is, neither packed nor compressed. The same files give the same digests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab_pipeline.core.storage import file_digest, read_json
from lab_pipeline.models.base_model import parameters

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_TYPES = "application/vnd.cncf.model"
_DOCUMENTS = ("README.md", "LICENSE", "lineage.json")


def write_layout(model: Path, layout: Path, tag: str) -> None:
    """Write the new folder `layout`, with one image named by `tag`; the model's files are moved there.

    Args:
        model: a model folder with its `lineage.json`.
    """
    lineage, size = read_json(model / "lineage.json"), parameters(model)
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    layers = []
    for path in sorted(path for path in model.rglob("*") if path.is_file()):
        name = path.relative_to(model).as_posix()
        annotations = {"org.cncf.model.filepath": name, "org.opencontainers.image.title": name}
        layer = {"mediaType": _media_type(path), "digest": f"sha256:{file_digest(path)}", "size": path.stat().st_size}
        layers.append({**layer, "annotations": annotations})
        path.rename(blob(layout, layers[-1]))
    config = {
        "descriptor": {
            "createdAt": lineage["evaluated_at"],
            "name": tag,
            "licenses": [lineage["base_licence"]],
            "description": f"Tuned from {lineage['base_model_id'] or lineage['base_model']} by the LAB method",
        },
        "config": {"architecture": "transformer", "format": "safetensors", "paramSize": _short(size), "precision": "bf16"},
        "modelfs": {"type": "layers", "diffIds": [layer["digest"] for layer in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": f"{_TYPES}.manifest.v1+json",
        "config": _stored(config, f"{_TYPES}.config.v1+json", layout),
        "layers": layers,
    }
    described = {**_stored(manifest, MANIFEST, layout), "artifactType": manifest["artifactType"]}
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{**described, "annotations": {"org.opencontainers.image.ref.name": tag}}],
    }
    (layout / "index.json").write_text(json.dumps(index), encoding="utf-8")
    (layout / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}), encoding="utf-8")


def blob(layout: Path, descriptor: Mapping[str, Any]) -> Path:
    """Return the path of the file in a layout that an OCI descriptor points to."""
    return layout / "blobs" / descriptor["digest"].replace(":", "/")


def _media_type(path: Path) -> str:
    kind = "weight" if path.suffix == ".safetensors" else "doc" if path.name in _DOCUMENTS else "weight.config"
    return f"{_TYPES}.{kind}.v1.raw"


def _stored(value: Mapping[str, Any], media_type: str, layout: Path) -> dict[str, Any]:
    """Store a JSON value as a blob of the layout, and return its descriptor."""
    written = layout / "value.json"
    written.write_text(json.dumps(value, sort_keys=True), encoding="utf-8")
    described = {"mediaType": media_type, "digest": f"sha256:{file_digest(written)}", "size": written.stat().st_size}
    written.rename(blob(layout, described))
    return described


def _short(number: int) -> str:
    """Write a number of parameters as ModelPack does: 134.5M, 8.0B."""
    for letter, unit in (("T", 10**12), ("B", 10**9), ("M", 10**6)):
        if number >= unit:
            return f"{number / unit:.1f}{letter}"
    return f"{number / 1000:.1f}K"
