from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from lab_pipeline.config.settings import FlowSettings, Settings
from lab_pipeline.flows.choose import flows_of_leaves
from lab_pipeline.flows.flow import SHIPPED, FlowError
from lab_pipeline.taxonomy.leaf import Kind
from lab_pipeline_tests.builders import settings_for

KINDS: dict[str, Kind] = {
    "knowledge/history/rome": "knowledge",
    "knowledge/history_of_art/paint": "knowledge",
    "skills/notes/dates": "grounded_skill",
    "skills/notes/poems": "freeform_skill",
}


def chosen(flows: FlowSettings, **sections: Any) -> list[str]:
    settings: Settings = settings_for(Path("taxonomy"), flows=flows, **sections)
    return [flow.name for flow in flows_of_leaves(settings, KINDS).values()]


def test_unless_set_the_teacher_decides() -> None:
    simple = ["simple_knowledge", "simple_knowledge", "simple_grounded_skill", "simple_freeform_skill"]
    assert chosen(FlowSettings()) == simple
    endpoint = {"kind": "endpoint", "url": "http://127.0.0.1:9/v1", "model": "strong"}
    assert chosen(FlowSettings(), teacher=endpoint) == [name.removeprefix("simple_") for name in simple]
    assert chosen(FlowSettings(knowledge="simple_knowledge"), teacher=endpoint)[1:3] == ["simple_knowledge", "grounded_skill"]


def test_the_longest_key_that_names_the_leaf_or_a_branch_above_it_counts(tmp_path: Path) -> None:
    own = shutil.copytree(SHIPPED / "knowledge", tmp_path / "own")
    leaves = {"knowledge": "knowledge", "knowledge/history": str(own), "knowledge/history/rome": "simple_knowledge"}
    assert chosen(FlowSettings(leaves=leaves))[:2] == ["simple_knowledge", "knowledge"]
    del leaves["knowledge/history/rome"]
    assert chosen(FlowSettings(leaves=leaves))[:2] == ["own", "knowledge"], "history_of_art is no leaf of history"


def test_a_branch_may_hold_leaves_of_a_kind_that_its_flow_does_not_serve() -> None:
    leaves = {"skills": "freeform_skill", "skills/notes": "grounded_skill"}
    assert chosen(FlowSettings(leaves=leaves))[2:] == ["grounded_skill", "freeform_skill"]


@pytest.mark.parametrize(
    ("leaves", "said"),
    [
        ({"skills/notes/poems": "grounded_skill"}, "flow grounded_skill serves grounded_skill leaves, not freeform_skill"),
        ({"skills": "no_such_flow"}, "no flow 'no_such_flow'"),
    ],
)
def test_a_flow_that_cannot_serve_its_leaf_is_an_error(leaves: dict[str, str], said: str) -> None:
    with pytest.raises(FlowError, match=said):
        chosen(FlowSettings(leaves=leaves))
