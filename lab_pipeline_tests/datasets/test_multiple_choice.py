from __future__ import annotations

from lab_pipeline.core.rows import HeldoutQuestion
from lab_pipeline.datasets.multiple_choice import choice_questions
from lab_pipeline_tests.builders import KNOWLEDGE


def test_a_question_without_a_wrong_choice_is_left_out():
    question: HeldoutQuestion = {"id": "a", "question": "Who?", "answer": "Anna.", "context": None}
    assert choice_questions(KNOWLEDGE, [question], ["anna."], 17) == []
    (made,) = choice_questions(KNOWLEDGE, [question], ["anna.", "Bea."], 17)
    assert sorted(made["choices"]) == ["Anna.", "Bea."] and made["choices"][made["answer"]] == "Anna."
