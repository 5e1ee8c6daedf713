from __future__ import annotations

from pathlib import Path

import pytest

from lab_pipeline.config.settings import initial_settings
from lab_pipeline_tests.datasets.filled import FilledHome, copied, half_good_home
from lab_pipeline_tests.pages.visitor import Visitor


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> FilledHome:
    """A home with kept and rejected rows; not to be changed."""
    return half_good_home(tmp_path_factory.mktemp("pages"))


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
