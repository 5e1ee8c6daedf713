from __future__ import annotations

from typing import Any

import pytest

from lab_pipeline.core.home import Home
from lab_pipeline.core.verdict import label, lost_questions
from lab_pipeline.evaluation import acceptance
from lab_pipeline.evaluation.acceptance import ask_acceptance, failure
from lab_pipeline.evaluation.measured_model import MeasuredModel


def question(**asks: Any) -> Any:
    blank: dict[str, Any] = {"any_of": [], "all_of": [], "none_of": [], "declines": False}
    return {"leaf": "", "name": "n", "question": "q", "context": None, **blank, **asks}


@pytest.mark.parametrize(
    ("asks", "passes", "fails"),
    [
        ({"any_of": ["27", "twenty-seven"]}, ["It has 27 locks.", "Twenty-Seven."], ["127 locks", "2.7", ""]),
        ({"all_of": ["red", "blue"]}, ["Blue and RED!"], ["red", "bluered"]),
        ({"none_of": ["price list", "€5"]}, ["A list of prices", "€50", "5", ""], ["The price  list.", "Only € 5."]),
        ({"declines": True}, ["I'm sorry, I don't know the answer."], ["It is red.", ""]),
        ({"declines": True, "none_of": ["red"]}, ["I don't know the answer."], ["I don't know the answer; maybe red."]),
        ({"any_of": ["東京"]}, ["それは東京です。"], ["京都です。"]),
        ({"any_of": ["café"]}, ["the cafe\u0301"], ["cafes"]),
    ],
)
def test_answers_are_checked_by_whole_words(asks, passes, fails):
    assert [failure(question(**asks), answer) for answer in passes] == [None] * len(passes)
    assert all(failure(question(**asks), answer) for answer in fails)


def test_each_model_is_asked_once_and_what_only_the_reference_passes_is_lost(tmp_path, monkeypatch):
    asked = []

    def answers(folder, questions, tokens, say):
        asked.append(folder.name)
        return ["red" if folder.name == "old" else "blue"] * len(questions)

    monkeypatch.setattr(acceptance, "greedy_answers", answers)
    home = Home.open(tmp_path / "home")
    models = {"champion": MeasuredModel(tmp_path / "old", "1"), "candidate": MeasuredModel(tmp_path / "new", "2")}
    exam = [question(any_of=["red"], leaf="knowledge/a"), question(any_of=["blue"]), question(any_of=["green"])]
    results = ask_acceptance(home, exam, models, lambda text: None)
    assert [label(each) for each in lost_questions(results, "champion")] == ["knowledge/a: n"]
    assert results == ask_acceptance(home, exam, models, lambda text: None) and asked == ["old", "new"]
    assert ask_acceptance(home, [], models, lambda text: None) == []
