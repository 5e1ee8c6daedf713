from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab_pipeline.curation.grounding import grounding_scores
from lab_pipeline.models.likelihood import answer_losses


def row(name: str, **columns: Any) -> dict[str, Any]:
    good = {"question": "Who made it?", "answer": "A clock mender made it.", "support": "It was made by a clock mender."}
    return {"id": name, "fault": None, **good, **columns}


def scores(model: Path, *rows: dict[str, Any]) -> dict[str, float]:
    return grounding_scores(model, list(rows), lambda text: None)


def test_the_score_is_what_the_source_takes_off_the_answers_loss(tiny_model: Path) -> None:
    given = row("a")
    asked = {"question": given["question"], "answer": given["answer"]}
    alone, grounded = answer_losses(tiny_model, [asked, {**asked, "context": given["support"]}], lambda text: None)
    assert scores(tiny_model, given)["a"] == pytest.approx(alone - grounded, abs=0.02)


def test_rows_are_scored_each_by_its_own_source(tiny_model: Path) -> None:
    found = scores(tiny_model, row("a"), row("b", support="Nobody knows."), row("c"))
    assert found["a"] == found["c"] != found["b"]


def test_rows_without_source_or_text_have_no_score(tiny_model: Path) -> None:
    without = [row("fault", fault="answer empty"), row("answer", answer=None), row("support", support=None)]
    assert scores(tiny_model, *without) == {}
    assert scores(tiny_model, *without, row("a")).keys() == {"a"}
