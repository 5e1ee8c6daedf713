from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import append_line, write_json
from lab_pipeline.evaluation import details
from lab_pipeline.evaluation.details import question_results, report_details
from lab_pipeline.evaluation.measured_model import MeasuredModel

BASE, CHAMPION, CANDIDATE = 4.0, 3.0, [1.0, 2.0, 2.5, 3.0, 3.25, 3.5, 5.0]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    def answers(folder: Path, questions: list[dict[str, Any]]) -> list[str]:
        return [f"{folder.name}: {question['question']}" for question in questions]

    monkeypatch.setattr(details, "greedy_answers", answers)
    home = Home.open(tmp_path)
    for phase in ("knowledge", "skills"):
        write_json(home.checkpoints / phase / "report.json", {"steps": 9, "curve": [], "validation": []})
        write_json(home.checkpoints / phase / "meta.json", {"versions": {"torch": "2"}})
    for number in range(2):
        reply = {"text": "t", "finish": "stop", "prompt_tokens": 10, "completion_tokens": 3}
        append_line(home.leaf("a/leaf") / "journal" / f"{number}.jsonl", {"request": str(number), "reply": reply})
    return home


def collected(home: Home, champion: bool = True, questions: int = 7) -> dict[str, Any]:
    """Details of an evaluation in which the questions of two leaves gained less and less, the last ones lost."""
    leaves = {
        "a/leaf": [{"id": f"i{n}", "question": f"q{n}", "answer": "a", "context": None} for n in range(min(questions, 4))],
        "b/leaf": [{"id": f"i{n}", "question": f"q{n}", "answer": "a", "context": None} for n in range(4, questions)],
        "c/leaf": [],
    }
    general = [{"question": f"g{n}", "answer": "a", "category": ("sums", "places")[n % 2]} for n in range(4)]
    scores = {
        "base": {"a/leaf": [BASE] * 4, "b/leaf": [BASE] * 3, "c/leaf": [], "general": [1.0] * 4},
        "champion": {"a/leaf": [CHAMPION] * 4, "b/leaf": [CHAMPION] * 3, "c/leaf": [], "general": [1.0] * 4},
        "candidate": {"a/leaf": CANDIDATE[:4], "b/leaf": CANDIDATE[4:], "c/leaf": [], "general": [1.0, 2.0, 1.0, 4.0]},
    }
    if not champion:
        del scores["champion"]
    evaluation = {
        "policy": {"confidence": 0.95},
        "checkpoints": {phase: phase for phase in ("knowledge", "skills")},
        "leaves": [{"leaf": "a/leaf"}],
        "candidate": "new",
        "evaluated_at": "2026-01-01",
        "verdict": {"promoted": True, "outcome": "better"},
        "heldout": {"candidate": 2.0},
    }
    heldout = {"leaves": leaves, "general": general}
    models = {model: MeasuredModel(home.root / model, model) for model in scores}
    ranks = {model: {leaf: [None] * len(asked) for leaf, asked in leaves.items()} for model in scores}
    results = question_results(leaves, scores, ranks)
    return report_details(home, evaluation, heldout, scores, results, models, lambda text: None)


def test_the_questions_that_changed_most_are_asked_of_every_model(home):
    found = collected(home)
    assert [question["question"] for question in found["gained"]] == ["q0", "q1", "q2"]
    assert [question["question"] for question in found["lost"]] == ["q6", "q5", "q4"]
    assert found["lost"][0] == {
        "leaf": "b/leaf",
        "id": "i6",
        "question": "q6",
        "answer": "a",
        "context": None,
        "losses": {"base": 4.0, "champion": 3.0, "candidate": 5.0},
        "difference": 2.0,
        "answers": {model: f"{model}: q6" for model in ("base", "champion", "candidate")},
        "right": dict.fromkeys(("base", "champion", "candidate")),
    }


@pytest.mark.parametrize(("questions", "gained", "lost"), [(0, [], []), (2, ["q0", "q1"], []), (4, ["q0", "q1", "q2"], ["q3"])])
def test_no_question_is_shown_twice(home, questions, gained, lost):
    found = collected(home, questions=questions)
    assert [question["question"] for question in found["gained"]] == gained
    assert [question["question"] for question in found["lost"]] == lost


def test_without_a_champion_the_base_model_is_what_is_compared_with(home):
    with_champion, without = collected(home)["leaves"][0], collected(home, champion=False)["leaves"][0]
    mean = sum(CANDIDATE[:4]) / 4
    assert with_champion["difference"] == pytest.approx(mean - CHAMPION)
    assert without["difference"] == pytest.approx(mean - BASE)
    assert set(without["losses"]) == {"base", "candidate"}


def test_a_leaf_without_questions_has_no_difference(home):
    row = collected(home)["leaves"][2]
    assert (row["name"], row["questions"], row["difference"], row["interval"]) == ("c/leaf", 0, None, None)


def test_general_questions_are_compared_by_category(home):
    found = {row["name"]: row for row in collected(home)["general"]}
    assert {name: (row["questions"], row["difference"]) for name, row in found.items()} == {
        "sums": (2, 0.0),
        "places": (2, 2.0),
    }


def test_costs_that_an_earlier_release_kept_as_null_are_0(home):
    reply = {"text": "t", "finish": "stop", "prompt_tokens": None, "completion_tokens": None}
    append_line(home.leaf("a/leaf") / "journal" / "null.jsonl", {"request": "null", "reply": reply})
    found = collected(home)
    assert found["teacher"] == {"calls": 3, "prompt_tokens": 20, "completion_tokens": 6}


def test_costs_are_those_of_journals_and_checkpoints(home):
    found = collected(home)
    assert found["teacher"] == {"calls": 2, "prompt_tokens": 20, "completion_tokens": 6}
    assert found["training"]["skills"]["steps"] == 9
    assert found["versions"] == {"torch": "2"}
