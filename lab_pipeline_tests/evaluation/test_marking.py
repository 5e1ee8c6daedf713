from __future__ import annotations

import pytest

from lab_pipeline.evaluation.marking import mark_answer

TIMES = "How many times does the harbour bell ring?"


@pytest.mark.parametrize(
    ("question", "reference", "answer", "mark"),
    [
        (TIMES, "The bell rings seven times.", "It rings 7 times at dusk.", ("right", "says seven")),
        (TIMES, "The bell rings seven times.", "The bell rings eight times.", ("wrong", "lacks seven")),
        ("What is it called?", "It is called Old Marrow.", "The Old Bell.", ("partly", "lacks Marrow")),
        ("Who sails it?", "It bears the name Orra Senn.", "It bears the name Pell.", ("wrong", "lacks Orra, Senn")),
        ("Who sails it?", "It bears the name Orra Senn.", "That is Orra Senn.", ("right", "says Orra, Senn")),
        ("When does it run?", "Not on Mondays.", "On Mondays.", ("wrong", "says the opposite")),
        ("Is it open?", "Yes.", "No.", ("unmarked", "compare it with the right answer yourself")),
        (
            "Write a letter.",
            "Dear Ann, thank you warmly for yesterday evening, friend.",
            "Hi",
            ("unmarked", "compare it with the right answer yourself"),
        ),
    ],
)
def test_an_answer_is_marked_by_the_telling_words_of_the_reference(question, reference, answer, mark):
    assert mark_answer(question, reference, answer) == mark
