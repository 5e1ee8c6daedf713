"""A taxonomy as some address and ref name it, and an ssh that stays on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lab_pipeline.config.settings import DocumentSettings, Settings, TaxonomySettings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.taxonomy.snapshot import Snapshot, take_snapshot
from lab_pipeline.taxonomy.source import Taxonomy, open_taxonomy, taxonomy_state
from lab_pipeline_tests.builders import FREEFORM
from lab_pipeline_tests.repositories import write_files


class Source:
    """A taxonomy at `root`/taxonomy as some address and ref name it, with a home of its own."""

    def __init__(self, root: Path, address: str | Path, ref: str | None = None, **documents) -> None:
        self.root = root
        self.home = Home.open(root / "home")
        self.address = str(address)
        self.documents = DocumentSettings(**documents)
        self.set(ref)

    def set(self, ref: str | None) -> None:
        """Give another ref in the settings."""
        taxonomy = TaxonomySettings(path=self.address, ref=ref)
        self.settings = Settings(taxonomy=taxonomy, documents=self.documents)

    def state(self) -> str:
        return taxonomy_state(self.home, self.settings)

    def open(self) -> Taxonomy:
        return open_taxonomy(self.home, self.settings)

    def take(self) -> Snapshot:
        return take_snapshot(self.home, self.settings)

    def refusal(self) -> str:
        """What both state and snapshot say instead of giving a result."""
        with pytest.raises(LabError) as of_state:
            self.state()
        with pytest.raises(LabError) as of_snapshot:
            self.take()
        assert str(of_state.value) == str(of_snapshot.value)
        return str(of_state.value)


def serve_by_ssh(folder: Path, patch: pytest.MonkeyPatch, script: str = 'for last; do :; done; exec sh -c "$last"') -> None:
    """Put an `ssh` first on the path that runs the asked command on this machine, or does what `script` says."""
    write_files(folder, {"bin/ssh": f"#!/bin/sh\n{script}\n"})
    (folder / "bin/ssh").chmod(0o755)
    patch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def touch_qna(taxonomy: Path, text: str = "# edited\n") -> None:
    path = taxonomy / FREEFORM / "qna.yaml"
    path.write_text(path.read_text() + text)
