from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from lab_pipeline.models.likelihood import answer_losses
from lab_pipeline.training.validation import NOTHING, choose
from lab_pipeline_tests.training.runs import rows_to_validate_on, training_row, validation_set


def epochs(*losses: tuple[float | None, float | None]) -> list[dict[str, Any]]:
    """Measurements from (leaves, general)."""
    return [{"epoch": number, "leaves": leaves, "general": general} for number, (leaves, general) in enumerate(losses, 1)]


@pytest.mark.parametrize(
    ("measured", "base", "epoch", "why"),
    [
        # the lowest on the leaves, of those that forgot little enough
        (epochs((3.0, 1.0), (2.0, 1.1), (1.0, 1.11)), 1.0, 2, "leaves (2.000) of the epochs whose"),
        (epochs((3.0, 1.0), (1.0, 0.9), (2.0, 0.8)), 1.0, 2, "leaves (1.000)"),
        (epochs((3.0, 1.0), (2.0, 1.0), (2.0, 0.5)), 1.0, 2, "3 of 3"),  # a tie
        (epochs((3.0, 1.5), (2.0, 1.05), (1.0, 1.5)), 1.0, 2, "1 of 3"),
        # none did
        (epochs((3.0, 1.4), (2.0, 1.2), (1.0, 1.3)), 1.0, 2, "lowest general loss (1.200); there is none"),
        (epochs((3.0, 1.3), (2.0, 1.3)), 1.0, 1, "lowest general loss"),
        # one of both is missing
        (epochs((3.0, None), (1.0, None), (2.0, None)), None, 2, "no general rows"),
        (epochs((None, 1.0), (None, 1.1), (None, 1.2)), 1.0, 2, "no leaf can spare"),
        # a model that broke
        (epochs((math.nan, math.nan), (3.0, 1.4), (math.nan, math.nan)), 1.0, 2, "lowest general loss"),
        (epochs((math.nan, 1.0), (3.0, 1.0)), 1.0, 2, "leaves (3.000)"),
        (epochs((2.0, 1.0)), math.nan, 1, "lowest general loss"),
    ],
)
def test_the_epoch_taken(measured, base, epoch, why):
    choice = choose(measured, len(measured), base, 0.1)
    assert choice["epoch"] == epoch and why in choice["why"]


def test_where_nothing_was_measured_it_is_the_last():
    choice = choose([], 8, None, 0.1)
    assert (choice["epoch"], choice["of"]) == (8, 8) and "no validation rows" in choice["why"]


losses = st.one_of(st.floats(0, 3), st.just(math.nan))


@given(st.lists(st.tuples(losses, losses), min_size=1), st.floats(0, 3), st.sampled_from(["leaves", "general", None]))
def test_a_further_epoch_leaves_the_choice_or_is_chosen_itself(several, base, missing):
    """What is kept while training goes on is thus what is chosen at its end."""
    measured = [{**each, missing: None} if missing else each for each in epochs(*several)]
    base = None if missing == "general" else base
    chosen = [choose(measured[:count], len(measured), base, 0.1)["epoch"] for count in range(1, len(measured) + 1)]
    assert all(now in (before, number) for number, (before, now) in enumerate(zip([1, *chosen], chosen, strict=False), 1))


def test_the_loss_is_the_evaluations_own_each_leaf_counting_once(tiny_model: Path):
    rows = [*rows_to_validate_on(), training_row("Is it far?", "It is.", leaf="a/leaf", part="validation")]
    found = validation_set(rows, AutoTokenizer.from_pretrained(tiny_model)).measure(
        AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    )
    asked = [{"question": row["messages"][0]["content"], "answer": row["messages"][1]["content"]} for row in rows]
    each = dict(zip([row["id"] for row in rows], answer_losses(tiny_model, asked, lambda text: None), strict=True))
    means = {}
    for leaf in ("a/leaf", "b/leaf", None):
        of_leaf = [each[row["id"]] for row in rows if row["leaf"] == leaf]
        means[leaf] = sum(of_leaf) / len(of_leaf)
    assert found["by_leaf"] == pytest.approx({"a/leaf": means["a/leaf"], "b/leaf": means["b/leaf"]}, rel=2e-2)
    assert found["leaves"] == pytest.approx((means["a/leaf"] + means["b/leaf"]) / 2, rel=2e-2)
    assert found["general"] == pytest.approx(means[None], rel=2e-2)


def test_measuring_draws_no_random_number_and_goes_back_to_training(tiny_model: Path):
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16).train()
    validation = validation_set(rows_to_validate_on(), AutoTokenizer.from_pretrained(tiny_model))
    before = torch.get_rng_state()
    first = validation.measure(model)
    assert model.training and torch.equal(torch.get_rng_state(), before)
    assert validation.measure(model) == first


def test_without_rows_there_is_nothing_to_measure(tiny_model: Path):
    nothing = {"leaves": None, "general": None, "by_leaf": {}}
    assert NOTHING.measure(AutoModelForCausalLM.from_pretrained(tiny_model)) == nothing
