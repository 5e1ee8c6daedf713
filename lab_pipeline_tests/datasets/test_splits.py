from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_pipeline.datasets.splits import ENOUGH_ROWS, validation_ids
from lab_pipeline.text.leaks import LeakDetector
from lab_pipeline_tests.builders import word


def curated(number: int, question: str, support: str | None = None) -> dict[str, Any]:
    made = dict.fromkeys(("document", "document_commit", "taxonomy_commit", "flow", "teacher", "context"))
    return {
        **made,
        "id": f"r{number}",
        "leaf": "a/leaf",
        "kind": "knowledge",
        "question": question,
        "answer": "a",
        "support": support,
    }


def unlike(count: int) -> list[dict[str, Any]]:
    """Rows whose questions have nothing in common, all about one text."""
    return [curated(n, f"Where is {word(n, 'place')} in {word(n, 'land')}?", "a text") for n in range(count)]


rows_of_few_words = st.lists(
    st.tuples(st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=7), st.sampled_from([None, *"123456789"])),
    min_size=8,
    max_size=40,
).map(lambda drawn: [curated(n, " ".join(f"word{letter}" for letter in words), text) for n, (words, text) in enumerate(drawn)])


@given(rows_of_few_words, st.floats(0, 0.5), st.integers(0, 3), st.randoms())
def test_no_row_that_validates_is_like_one_to_train_on_and_the_share_is_kept(rows, share, seed, order):
    kept = validation_ids(rows, ["wordh worda"], share, seed)
    assert len(kept) <= share * len(rows)
    trained = [row for row in rows if row["id"] not in kept]
    validated = [row for row in rows if row["id"] in kept]
    known = LeakDetector([*(row["question"] for row in trained), "wordh worda"])
    assert not [row for row in validated if known.leak(row["question"])]
    assert {row["support"] for row in validated} - {None} <= {row["support"] for row in trained}, "each fact is still taught"
    assert validation_ids(order.sample(rows, len(rows)), ["wordh worda"], share, seed) == kept


def test_a_tenth_of_unlike_rows_is_kept_by_chance_of_the_seed():
    rows = unlike(40)
    kept = validation_ids(rows, [], 0.1, 17)
    assert len(kept) == 4
    assert validation_ids(rows, [], 0.1, 18) != kept


@pytest.mark.parametrize(("rows", "expected"), [(ENOUGH_ROWS - 1, 0), (ENOUGH_ROWS, 5)])
def test_a_small_leaf_spares_none(rows, expected):
    assert len(validation_ids(unlike(rows), [], 0.5, 17)) == expected


def test_a_row_that_asks_what_a_seed_in_use_asks_is_for_training():
    rows = unlike(12)
    seeds = [row["question"].upper() for row in rows[:9]]
    assert validation_ids(rows, seeds, 0.5, 17) == {"r9", "r10", "r11"}


def test_a_group_is_joined_through_others():
    bridge = curated(20, "Where is the old stone bridge by the mill today?")
    twin = curated(21, "Where is today the old stone bridge by the mill?")
    cousin = curated(22, "Where today is the old stone bridge?")
    rows = [*unlike(10), bridge, cousin, twin]
    kept = [validation_ids(rows, [], 0.4, seed) for seed in range(20)]
    assert {len(each & {"r20", "r21", "r22"}) for each in kept} == {0, 3}


def test_a_fact_that_no_other_row_teaches_is_for_training():
    rows = [{**row, "support": f"fact {n // 2}"} for n, row in enumerate(unlike(9))] + [curated(9, "Why at all?", "fact 9")]
    kept = [validation_ids(rows, [], 0.5, seed) for seed in range(20)]
    assert {len(each) for each in kept} == {4}, "one of each pair"
    assert not set().union(*kept) & {"r8", "r9"}


def test_contexts_made_for_a_skill_are_no_facts_and_document_instructions_only_train():
    skills = [{**row, "kind": "grounded_skill", "context": f"{word(row['id'])} {word(row['id'], 2)}"} for row in unlike(10)]
    assert len(validation_ids(skills, [], 0.5, 17)) == 5
    assert not validation_ids([{**row, "kind": "knowledge"} for row in skills], [], 0.5, 17)
