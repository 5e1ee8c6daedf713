from __future__ import annotations

import shutil
from pathlib import Path
from typing import get_args

import pytest

from lab_pipeline.config.settings import FlowSettings
from lab_pipeline.core.home import Home
from lab_pipeline.taxonomy.leaf import Kind
from lab_pipeline.taxonomy.snapshot import current_snapshot, take_snapshot
from lab_pipeline_tests.builders import (
    FREEFORM,
    GROUNDED,
    KNOWLEDGE,
    edit_yaml,
    judged_copy,
    settings_for,
    write_knowledge,
    write_skill,
)
from lab_pipeline_tests.instructions.leaf_lab import Lab
from lab_pipeline_tests.scripted_teacher import ScriptedTeacher


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with taxonomy, simple flows with a judge each, and a home with a snapshot."""
    root = tmp_path_factory.mktemp("prepared")
    write_knowledge(root / "taxonomy", KNOWLEDGE, "documents")
    (document,) = (root / "taxonomy" / "documents").iterdir()
    document.write_text("The gate of Harsk is made of walnut. It was built by Pellira Donsk. Its two towers are called twins.")
    write_skill(root / "taxonomy", GROUNDED, seeds=5, grounded=True)
    write_skill(root / "taxonomy", FREEFORM, seeds=5)
    for kind in get_args(Kind):
        judged_copy(kind, root / "flows" / f"simple_{kind}")
    for skill in ("simple_grounded_skill", "simple_freeform_skill"):
        edit_yaml(root / "flows" / skill / "flow.yaml", lambda file: file["start"].update(repeats=1))
    two_ways = {"temperatures": [0.0, 0.7]}  # the scripted teacher knows no third
    edit_yaml(root / "flows" / "simple_knowledge" / "flow.yaml", lambda file: file["stages"][0].update(two_ways))
    take_snapshot(Home.open(root / "home"), settings_for(root / "taxonomy"))
    return root


@pytest.fixture
def lab(prepared: Path, tmp_path: Path) -> Lab:
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    home = Home.open(tmp_path / "home")
    own = {kind: str(tmp_path / "flows" / f"simple_{kind}") for kind in get_args(Kind)}
    settings = settings_for(tmp_path / "taxonomy", flows=FlowSettings(**own))
    teacher, judge = ScriptedTeacher(identity="teacher"), ScriptedTeacher(identity="judge")
    return Lab(home, settings, tmp_path / "taxonomy", Path(own["knowledge"]), teacher, judge, current_snapshot(home))
