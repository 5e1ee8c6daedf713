"""What Dagster shows of an evaluation's judge."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import write_json
from lab_pipeline.defs.metadata import acceptance_results, judged_answers
from lab_pipeline.defs.promotion.checks import judge_separates_known_rows
from lab_pipeline.defs.resources import Lab

AGREEMENT = {"graded": 52, "not_graded": 0, "alike": 0.9, "repeats": None}


def known(area: float) -> dict[str, Any]:
    rows = {"rows": 52, "area": area, "interval": [area - 0.05, area], "separates": area >= 0.9, "agreement": AGREEMENT}
    return {"judge": "strict", "unanswered": None, "known_rows": rows}


@pytest.mark.parametrize(
    ("judged", "passed", "said"),
    [
        ({}, True, "no judge endpoint is configured"),
        ({"judged": None}, True, "no judge endpoint is configured"),
        ({"judged": {"judge": "strict", "unanswered": "the judge did not answer: HTTP 503"}}, False, "HTTP 503"),
        ({"judged": known(0.95)}, True, "may refuse"),
        ({"judged": known(0.7)}, False, "advice only"),
    ],
)
def test_the_check_says_whether_the_judge_separates_known_rows(tmp_path, judged, passed, said) -> None:
    write_json(Home.open(tmp_path).evaluations / "last.json", {"verdict": {}, "report": "r/report.md", **judged})
    result = judge_separates_known_rows(Lab(root=str(tmp_path)))
    assert isinstance(result, dg.AssetCheckResult)
    assert result.passed == passed and said in (result.description or "")
    assert passed or result.severity == dg.AssetCheckSeverity.WARN
    if "known_rows" in (judged.get("judged") or {}):
        assert result.metadata["area_under_curve"].value == judged["judged"]["known_rows"]["area"]
        assert (result.metadata["rows"].value, result.metadata["judge_alike"].value) == (52, 0.9)


def test_metadata_hold_what_the_judge_said() -> None:
    assert judged_answers(None) == {}
    assert judged_answers({"unanswered": "down"}) == {"judge_unanswered": "down"}
    found = {
        **known(0.95),
        "agreement": AGREEMENT,
        "models": {"base": {"score": 0.25}, "candidate": {"score": 0.5}, "champion": None},
        "raw": {"difference": 0.25, "interval": [0.1, 0.4]},
        "equal_length": None,
    }
    assert judged_answers(found) == {
        "judged_base": 0.25,
        "judged_candidate": 0.5,
        "judged_difference_raw": 0.25,
        "judge_may_decide": True,
        "judge_graded": 52,
        "judge_not_graded": 0,
        "judge_alike": 0.9,
    }


def test_acceptance_questions_are_numbers_that_can_be_plotted() -> None:
    def result(champion: str | None, candidate: str | None) -> Any:
        return {"failures": {"base": "lacks 'x'", "champion": champion, "candidate": candidate}}

    assert acceptance_results([], "base") == {}
    assert acceptance_results([result(None, "lacks 'x'"), result(None, None)], "champion") == {
        "acceptance_questions": 2,
        "acceptance_base": 0.0,
        "acceptance_champion": 1.0,
        "acceptance_candidate": 0.5,
        "acceptance_lost": 1,
    }
