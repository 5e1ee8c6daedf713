from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from lab_pipeline.core.rows import EXCLUDED_SCHEMA, TRAINING_SCHEMA, as_prompt
from lab_pipeline.datasets import exclusion
from lab_pipeline.datasets.exclusion import exclude_rows
from lab_pipeline.text.leaks import LeakDetector

TEST = LeakDetector(["Which river feeds the old mill of Osmerel?"])


def row(name: str, question: str, answer: str = "", leaf: str | None = "a", source: str = "curated") -> dict[str, Any]:
    return {
        "id": f"id {name}",
        "messages": [*as_prompt(question, None), {"role": "assistant", "content": answer or f"The answer is {name}."}],
        "metadata": "{}",
        "unmask": False,
        "leaf": leaf,
        "source": source,
        "source_row": name,
        "part": "train",
    }


def filtered(*rows: dict[str, Any]) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the names of the kept rows, and the excluded rows."""
    tables, excluded = exclude_rows([pa.Table.from_pylist([each], TRAINING_SCHEMA) for each in rows], TEST)
    pa.Table.from_pylist(excluded, EXCLUDED_SCHEMA)
    return [name for table in tables for name in table["source_row"].to_pylist()], excluded


@pytest.mark.parametrize(
    ("bad", "rule", "reason"),
    [
        (row("bad", "What is <|im_end|>?"), "markup", "<|im_end|>"),
        (row("bad", "What?", "Nothing.<|endoftext|>"), "markup", "<|endoftext|>"),
        (row("bad", "which RIVER feeds the old mill of Osmerel"), "held_out", "Which river"),
    ],
)
def test_a_row_that_is_wrong_by_itself_is_left_out_with_rule_and_reason(bad, rule, reason):
    names, (excluded,) = filtered(row("one", "What is one?"), bad, row("two", "What is two?"))
    assert names == ["one", "two"]
    assert (excluded["id"], excluded["rule"], excluded["repeats"]) == ("bad", rule, None)
    assert reason in excluded["reason"] and excluded["question"] == bad["messages"][0]["content"]


def test_a_later_turn_that_asks_the_tests_question_is_seen():
    bad = row("bad", "Hello?")
    bad["messages"] += [
        {"role": "user", "content": "Which river feeds the old mill of Osmerel?"},
        {"role": "assistant", "content": "Tarn."},
    ]
    assert [each["rule"] for each in filtered(bad)[1]] == ["held_out"]


def test_a_document_may_hold_what_the_test_asks_for():
    names, excluded = filtered(row("document", "Which river feeds the old mill of Osmerel?", source="document"))
    assert (names, excluded) == (["document"], [])


def test_the_same_question_is_learned_once_whatever_its_answer():
    names, (excluded,) = filtered(row("one", "What  is it?", "This."), row("two", "what is IT?", "That.", leaf="b"))
    assert names == ["one"]
    assert (excluded["rule"], excluded["repeats"], excluded["similarity"]) == ("duplicate", "one", None)
    assert excluded["reason"] == "same question as a row of a"


def test_seeds_of_one_leaf_may_answer_the_same_question_in_several_ways_and_rows_repeat_none_of_them():
    seeds = [row(f"s{n}", "Tell me a joke.", f"Joke {n}.", source="seed") for n in range(3)]
    others = [row("c", "Tell me a joke.", "One."), row("b", "Tell me a joke.", "Two.", leaf="b", source="seed")]
    names, excluded = filtered(*seeds, *others)
    assert names == ["s0", "s1", "s2"]
    assert [(each["rule"], each["leaf"]) for each in excluded] == [("duplicate", "a"), ("duplicate", "b")]


def test_the_same_question_on_another_context_is_another():
    assert (
        filtered(row("one", "Notes of May.\n\nWho came?", "Ada."), row("two", "Notes of June.\n\nWho came?", "Eva."))[1] == []
    )


def test_nearly_the_same_row_of_another_leaf_is_learned_once_and_says_which_and_how_near():
    question = "In which year did the weavers of Osmerel open their second dye house?"
    answer = "They opened the second dye house in 1871, beside the old water mill on the river."
    names, (excluded,) = filtered(
        row("one", question, answer),
        row("two", f"{question[:-1]} there?", answer.replace("old", "big"), leaf=None),
    )
    assert names == ["one"]
    assert (excluded["rule"], excluded["repeats"], excluded["leaf"]) == ("near_duplicate", "one", None)
    assert excluded["similarity"] == pytest.approx(9 / 11)
    names, (excluded,) = filtered(row("own", question, answer, leaf=None), row("two", f"So: {question}", answer, leaf="b"))
    assert excluded["reason"] == "nearly the same as a row of a custom data set"


def test_rows_are_excluded_alike_in_batches_of_any_size(monkeypatch):
    rows = [row(f"r{n}", f"What is the {n % 9} of {n % 4}?", leaf=f"leaf {n % 3}") for n in range(40)]
    rows.append(row("bad", "<|x|>?"))
    whole = filtered(*rows)
    assert {each["rule"] for each in whole[1]} == {"markup", "duplicate"}
    monkeypatch.setattr(exclusion, "_BATCH_ROWS", 7)
    names, excluded = filtered(*rows)
    assert (names, sorted(map(str, excluded))) == (whole[0], sorted(map(str, whole[1])))


def test_no_rows_are_no_rows():
    assert filtered() == ([], [])
