from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab_pipeline.datasets.multiple_choice import MOST_DISTRACTORS, draw_distractors
from lab_pipeline.evaluation.choices import answer_ranks, summarise_ranks
from lab_pipeline.models.likelihood import answer_losses
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


def test_the_rank_is_that_of_the_answers_losses_each_computed_alone(tiny_model):
    asked = [question(number, context="Anna paints." if number % 2 else None) for number in range(12)]
    others = [draw_distractors(each, ANSWERS, seed=17) for each in asked]
    ranks = answer_ranks(tiny_model, asked, others, lambda text: None)
    for each, drawn, rank in zip(asked, others, ranks, strict=True):
        reference, *losses = answer_losses(
            tiny_model, [{**each, "answer": one} for one in (each["answer"], *drawn)], lambda text: None
        )
        near = sum(abs(loss - reference) < 0.02 * reference for loss in losses)  # bf16 tells these apart by chance
        assert rank and rank["choices"] == 1 + len(drawn)
        assert abs(rank["rank"] - 1 - sum(loss < reference for loss in losses)) <= near
    assert len({rank["rank"] for rank in ranks if rank}) > 2


def test_a_model_that_computes_row_by_row_ranks_as_one_that_shares_a_prompts_cache(tiny_model, monkeypatch):
    asked = [question(number) for number in range(6)]
    others = [draw_distractors(each, ANSWERS, seed=17) for each in asked]
    shared = answer_ranks(tiny_model, asked, others, lambda text: None)
    monkeypatch.setattr("lab_pipeline.evaluation.choices.packs_rows", lambda config: False)
    alone = answer_ranks(tiny_model, asked, others, lambda text: None)
    for one, other in zip(shared, alone, strict=True):  # bf16 tells near ones apart by chance
        assert one and other and one["choices"] == other["choices"] and abs(one["rank"] - other["rank"]) <= 1


def test_a_tie_counts_against_the_reference(tiny_model):
    asked = question(1)
    assert answer_ranks(tiny_model, [asked], [[asked["answer"]]], lambda text: None) == [{"rank": 2, "choices": 2}]


def test_where_there_is_nothing_to_choose_from_there_is_no_rank(tiny_model):
    assert answer_ranks(Path("/no/model"), [question(1)], [[]], lambda text: None) == [None]
    ranked, silent = answer_ranks(tiny_model, [question(1), question(2)], [["Nobody."], []], lambda text: None)
    assert ranked and silent is None


def test_a_summary_holds_accuracy_reciprocal_rank_and_what_guessing_gives():
    found = summarise_ranks([{"rank": 1, "choices": 4}, None, {"rank": 4, "choices": 4}])
    assert found == {"questions": 2, "accuracy": 0.5, "reciprocal_rank": pytest.approx(0.625), "by_guessing": 0.25}
    assert summarise_ranks([None]) is None
