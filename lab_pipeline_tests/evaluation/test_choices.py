from __future__ import annotations

from typing import Any

import pytest

from lab_pipeline.datasets.multiple_choice import MOST_DISTRACTORS, draw_distractors
from lab_pipeline.evaluation.choices import rank_reference, summarise_ranks, with_choices
from lab_pipeline_tests.builders import word


def question(number: int, context: str | None = None) -> dict[str, Any]:
    return {"question": f"Who founded {word(number)}?", "answer": f"It was {word(number, 'founder')}.", "context": context}


ANSWERS = [" ".join(["It was", *(word(n, "founder") for n in range(number, number + 1 + number % 4))]) for number in range(30)]


def test_distractors_are_the_leafs_other_answers_drawn_by_seed():
    drawn = draw_distractors(question(1), ANSWERS, seed=17)
    assert len(set(drawn)) == MOST_DISTRACTORS and set(drawn) < set(ANSWERS)
    assert drawn == draw_distractors(question(1), ANSWERS[::-1], seed=17)
    assert drawn != draw_distractors(question(1), ANSWERS, seed=18)
    assert drawn != draw_distractors(question(2), ANSWERS, seed=17)


def test_an_answer_that_equals_the_reference_is_no_distractor():
    asked = question(1)
    assert draw_distractors(asked, [asked["answer"].upper() + " ", asked["answer"]], seed=17) == []
    assert draw_distractors(asked, ["Nobody did.", "nobody  did.", asked["answer"]], seed=17) in (
        ["Nobody did."],
        ["nobody  did."],
    )


def test_the_reference_is_ranked_among_the_wrong_answers_and_a_tie_counts_against_it():
    asked = with_choices(question(1), ["Nobody.", "Somebody."])
    assert [each["answer"] for each in asked] == [question(1)["answer"], "Nobody.", "Somebody."]
    assert rank_reference([1.0, 2.0, 0.5]) == {"rank": 2, "choices": 3}
    assert rank_reference([1.0, 1.0]) == {"rank": 2, "choices": 2}
    assert rank_reference([1.0]) is None


def test_a_summary_holds_accuracy_reciprocal_rank_and_what_guessing_gives():
    found = summarise_ranks([{"rank": 1, "choices": 4}, None, {"rank": 4, "choices": 4}])
    assert found == {"questions": 2, "accuracy": 0.5, "reciprocal_rank": pytest.approx(0.625), "by_guessing": 0.25}
    assert summarise_ranks([None]) is None
