from __future__ import annotations

import asyncio
from pathlib import Path

import dagster as dg

from lab_pipeline.core.home import Home
from lab_pipeline.defs.column_lineage import COLUMN_LINEAGE
from lab_pipeline.defs.instructions.checks import judge_check
from lab_pipeline.flows.flow import load_flow
from lab_pipeline.instructions.judge_calibration import Separations
from lab_pipeline.teacher.protocol import Reply, Request
from lab_pipeline_tests.builders import write_taxonomy
from lab_pipeline_tests.defs.refreshing import refreshed
from lab_pipeline_tests.lab import lab
from lab_pipeline_tests.scripted_teacher import ScriptedTeacher, known_verdicts


def test_the_check_shows_each_gating_judge_and_warns_of_one_that_cannot_judge(tmp_path: Path) -> None:
    home, flow = Home.open(tmp_path), load_flow("knowledge")
    known = known_verdicts(flow)

    def script(request: Request) -> Reply:
        good = known[request.messages[-1].content] or "Does the question stand" in request.messages[-1].content
        return Reply("", "stop", 1, 1, {"Yes": float(good), "No": float(not good)})

    assert judge_check(home, [flow], "scripted").passed, "nothing is known yet, and so nothing is wrong"
    trusted = asyncio.run(Separations(home, ScriptedTeacher(script), [].append).trusted(flow))
    assert [judge.name for judge in trusted.file.judges if judge.gates] == ["faithful", "relevant"]
    result = judge_check(home, [flow], "scripted")
    assert not result.passed
    areas = {record.data["judge"]: record.data["area"] for record in result.metadata["area_under_the_curve"].records}  # type: ignore[union-attr]
    assert areas == {"knowledge: faithful": 1.0, "knowledge: relevant": 1.0, "knowledge: self_contained": 0.5}
    assert judge_check(home, [flow], "another model").passed


def test_a_run_reports_the_check_on_its_leaves_judges(tmp_path, tiny_model, monkeypatch):
    with lab(tmp_path, write_taxonomy(tmp_path / "taxonomy"), tiny_model, monkeypatch) as opened:
        opened.set(flows={})  # the stub says Yes to everything, and no question of the strong flow
        with dg.DagsterInstance.ephemeral() as instance:
            made = refreshed(opened, instance)
    checks = {each.check_name: each for each in made.get_asset_check_evaluations()}
    assert not checks["judge_separates_known_rows"].passed
    assert checks["funnels_add_up"].passed
    (curated,) = made.asset_materializations_for_node("leaf_instructions")[-1:]
    assert curated.metadata["flow"].value == "freeform_skill"
    assert curated.metadata["dagster/column_lineage"].value == COLUMN_LINEAGE["curated_instructions"]
