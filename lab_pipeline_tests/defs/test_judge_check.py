from __future__ import annotations

import asyncio
from pathlib import Path

from lab_pipeline.defs.instructions.checks import judge_check
from lab_pipeline.flows.flow import load_flow
from lab_pipeline.flows.known_rows import Separations
from lab_pipeline.storage import Home
from lab_pipeline.teacher.protocol import Reply, Request
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
