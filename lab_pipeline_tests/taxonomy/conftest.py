from __future__ import annotations

from pathlib import Path

import pytest

from lab_pipeline_tests.builders import write_taxonomy
from lab_pipeline_tests.repositories import commit_files


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A taxonomy in a git repository, whose documents stand in it."""
    commit_files(write_taxonomy(tmp_path / "taxonomy"), {})
    return tmp_path / "taxonomy"
