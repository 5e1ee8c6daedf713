from __future__ import annotations

from pathlib import Path

import pytest

from lab_pipeline.config.settings import initial_settings
from lab_pipeline_tests.datasets.filled import FilledHome, copied
from lab_pipeline_tests.pages.visitor import Visitor


@pytest.fixture
def lab(filled: FilledHome, tmp_path: Path) -> FilledHome:
    """The same home once more, with settings, to be changed at will."""
    lab = copied(filled, tmp_path)
    lab.home.settings_file.write_text(initial_settings(lab.taxonomy))
    return lab


@pytest.fixture
def visitor(lab: FilledHome) -> Visitor:
    """Someone on this machine."""
    return Visitor(lab.home)
