"""Publish the champion outside of the home, for servers that take their model from an object store."""

from __future__ import annotations

import json

from lab_pipeline.config.settings import Settings
from lab_pipeline.core.remote import upload, write_there
from lab_pipeline.registry.champion import Champion


def publish(settings: Settings, champion: Champion) -> str | None:
    """Copy a champion to `ADDRESS/ID` and name it in `ADDRESS/champion.json`; return its address, None without the setting.

    `champion.json` is written last, so that whoever follows it finds the whole model, whose files were read back and compared.
    What is there already is not copied again.

    Raises:
        LabError: the store refuses. The champion of the home stays; publishing again goes on.
    """
    if settings.publish is None:
        return None
    root = settings.publish.rstrip("/")
    upload(champion.model, f"{root}/{champion.id}")
    write_there(root, "champion.json", json.dumps({"id": champion.id, "digest": champion.digest, "at": champion.promoted_at}))
    return f"{root}/{champion.id}"
