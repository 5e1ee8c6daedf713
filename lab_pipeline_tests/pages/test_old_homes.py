"""Homes of earlier releases, which lack what later ones store, are shown on every page."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from lab_pipeline.core.home import Home
from lab_pipeline.evaluation.history import evaluations
from lab_pipeline.reports.search import Query, find_rows, refreshed_leaves
from lab_pipeline_tests import homes
from lab_pipeline_tests.pages.visitor import Visitor

ARCHIVES = sorted(Path(homes.__file__).parent.glob("*.tar.xz"))


@pytest.mark.parametrize("archive", ARCHIVES, ids=[archive.stem for archive in ARCHIVES])
def test_every_page_shows_a_home_of_an_earlier_release(archive, tmp_path):
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    home = Home.open(tmp_path / "home")
    visitor = Visitor(home)
    for name in ("", "leaves", "rows", "rejects", "quality", "models"):
        assert visitor.text(name)
    for state in refreshed_leaves(home):
        assert "Models trained on it" in visitor.text("leaf", key=state.leaf)
        visitor.text("edit", leaf=state.leaf)
        (found,) = find_rows(home, [state], Query(status="kept"), count=1).rows
        assert "Origin" in visitor.text("row", leaf=state.leaf, id=found["row"]["id"])
    (model,) = evaluations(home)
    assert "The model in use is" in visitor.text("") and "test questions right" in visitor.text("")
    assert "The same recipe" in visitor.text("compare", one=model, other=model)
    for name in ("report", "card"):
        assert visitor.text(name, id=model)
    assert "<style>" in visitor.html("reportfile", id=model)
