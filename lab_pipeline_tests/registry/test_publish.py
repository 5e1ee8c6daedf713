from __future__ import annotations

import json
from pathlib import Path

from lab_pipeline.config.settings import Settings
from lab_pipeline.core.storage import folder_digest
from lab_pipeline.registry.champion import Champion
from lab_pipeline.registry.publish import publish


def test_a_champion_is_published_whole_and_then_named(tmp_path: Path):
    model = tmp_path / "champions" / "one"
    (model / "adapters").mkdir(parents=True)
    (model / "model.safetensors").write_bytes(b"weights")
    (model / "adapters" / "a").write_bytes(b"adapter")
    champion = Champion("one", model, "digest", "2026-11-29T00:00:00+00:00", {})
    settings = Settings(taxonomy={"path": "."}, publish=f"file://{tmp_path}/there/")  # type: ignore[arg-type]
    assert publish(settings, champion) == f"file://{tmp_path}/there/one"
    assert folder_digest(tmp_path / "there" / "one") == folder_digest(model)
    assert json.loads((tmp_path / "there" / "champion.json").read_text())["id"] == "one"
    assert publish(settings.model_copy(update={"publish": None}), champion) is None
