from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab_pipeline.core.storage import read_json, write_json, write_text
from lab_pipeline.datasets.quality import ExpectationResult, store_results
from lab_pipeline.pages.guard import REPORT_POLICY
from lab_pipeline.registry.champion import promote
from lab_pipeline_tests.pages.visitor import Visitor
from lab_pipeline_tests.registry.promotions import LEAVES, evaluation

RANKS = {
    "base": None,
    "champion": None,
    "candidate": {"questions": 4, "accuracy": 0.75, "reciprocal_rank": 0.8, "by_guessing": 0.2},
}
QUESTION = {"id": "q", "leaf": LEAVES[0], "question": "Who sings?", "answer": "Anna.", "context": None}


@pytest.fixture
def promoted(lab) -> Any:
    """Two promoted models; the second knows a leaf better, has another leaf and another recipe."""
    first = evaluation(lab.home, "skills-1")
    promote(lab.home, first)
    second = evaluation(lab.home, "skills-2", reference="skills-1")
    second["evaluated_at"] = "2026-02-01T00:00:00+00:00"
    second["heldout"]["leaves"][LEAVES[0]] = {**second["heldout"]["leaves"][LEAVES[0]], "candidate": 1.25, "ranks": RANKS}
    second["heldout"] = {**second["heldout"], "questions": 6, "ranks": RANKS}
    second["leaves"][1]["leaf"] = "knowledge/new"
    second["recipe"] = {"lora": {"rank": 8}, "added": True}
    second["report"] = str(Path("/another/machine/evaluations/skills-2/report.md"))
    write_json(lab.home.evaluations / "skills-2" / "evaluation.json", second)
    promote(lab.home, second)
    shown = {**QUESTION, "answers": {"champion": "Bea.", "candidate": "Anna sings."}}
    write_json(lab.home.evaluations / "skills-2" / "details.json", {"gained": [shown], "lost": []})
    write_text(lab.home.evaluations / "skills-2" / "report.html", "<!doctype html><p>the report</p>")
    return lab


@pytest.fixture
def visitor(promoted) -> Visitor:
    return Visitor(promoted.home)


def test_all_models_are_listed_the_last_first_with_their_standing(visitor):
    text = visitor.text("models")
    assert text.index("skills-2") < text.index("skills-1")
    assert "champion" in text and "earlier champion" in text and "3 of 4" in text and "promoted: better" in text
    assert "the numbers say so" in text


def test_two_models_stand_side_by_side(visitor):
    text = visitor.text("compare", one="skills-1", other="skills-2")
    assert "4 and 6" in text and "those of leaves that were tested alike 4 – – 1.500 1.250 better 0.250" in text
    assert f"{LEAVES[0]} 4 – 3 of 4 1.500 1.250 better 0.250" in text
    assert "knowledge/new – 7 added" in text and f"{LEAVES[1]} 7 – taken out" in text
    assert "recipe.lora.rank 4 8" in text and "recipe.added – True" in text
    assert "Who sings?" in text and "Reference Anna." in text and "First Bea." in text and "Second Anna sings." in text
    turned = visitor.text("compare", one="skills-2", other="skills-1")
    assert "worse 0.250" in turned and "First Anna sings." in turned
    same = visitor.text("compare", one="skills-2", other="skills-2")
    assert "The same recipe, seed and base model." in same and "same 0.000" in same


def test_a_model_that_was_not_evaluated_is_said(visitor):
    assert "no candidate of this id was evaluated; did you mean skills-" in visitor.text(
        "compare", 404, one="skills-1", other="skills-3"
    )
    assert "no champion" in visitor.text("card", 404, id="../../etc")


def test_a_report_stands_in_a_frame_that_may_run_nothing(visitor, promoted):
    assert '<iframe class="report" sandbox title=' in visitor.html("report", id="skills-2")
    answer = visitor.client.get("/reportfile?id=skills-2")
    assert "the report" in answer.text and answer.headers["content-security-policy"] == REPORT_POLICY
    (promoted.home.evaluations / "skills-2" / "report.html").unlink()
    assert "no longer in the home" in visitor.text("reportfile", 404, id="skills-2")


def test_a_card_is_rendered_without_its_front_matter(visitor):
    text = visitor.text("card", id="skills-2")
    assert "skills-2" in text and "pipeline_tag" not in text and "<table>" in visitor.html("card", id="skills-2")


def test_the_overview_begins_with_the_model_in_use(visitor, promoted):
    last = read_json(promoted.home.evaluations / "skills-2" / "evaluation.json")
    write_json(promoted.home.evaluations / "last.json", {**last, "inputs": "i"})
    text = visitor.text("")
    assert text.startswith("The model in use is skills-2") and "It answers 3 of 4 test questions right" in text
    rejected = evaluation(promoted.home, "skills-3", reference="skills-2", promoted=False)
    write_json(promoted.home.evaluations / "last.json", {**rejected, "inputs": "i"})
    text = visitor.text("")
    assert "The last candidate, skills-3, was not promoted" in text and "What to do next." in text
    assert "; it is not promoted, because so small a gain may be chance." in text


def test_quality_checks_show_what_failed_first(visitor, promoted):
    found = [
        ExpectationResult("ids_are_unique", "critical", True, "all"),
        ExpectationResult("answers_vary", "warning", False, "1 value"),
    ]
    store_results(promoted.home, "skills_dataset", "training_rows", 12, found)
    text = visitor.text("quality")
    assert "1 of 2 failed 12 rows" in text and text.index("Answers vary failed warning 1 value") < text.index(
        "Ids are unique passed"
    )
    assert text.count("Not checked yet.") == 2
