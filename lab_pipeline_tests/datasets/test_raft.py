from __future__ import annotations

import json
from typing import Any

from lab_pipeline.datasets.raft import raft_row

PASSAGES = [f"Passage {n} of the document." for n in range(8)]


def knowledge_row(number: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "It is this."}]
    return {"id": f"row {number}", "messages": messages, "metadata": '{"document": "d"}', "leaf": "a", "part": "train"}


def documents(row: dict[str, Any]) -> list[str]:
    return [passage for passage in PASSAGES if passage in row["messages"][0]["content"]]


def test_two_of_five_rows_hold_their_passage_among_three_others_and_the_rest_four_others():
    rows = [raft_row(knowledge_row(n), PASSAGES[n % 8], PASSAGES, 17) for n in range(2000)]
    answered = [PASSAGES[n % 8] in documents(row) for n, row in enumerate(rows)]
    assert 0.36 < sum(answered) / len(rows) < 0.44
    assert {len(documents(row)) for row in rows} == {4}
    assert [json.loads(row["metadata"])["answered"] for row in rows] == answered
    firsts = {row["messages"][0]["content"].split("\n")[1] for row in rows}
    assert firsts == set(PASSAGES), "the passage stands in no fixed place"


def test_question_and_answer_stay_and_the_row_gets_an_id_of_its_own():
    row = raft_row(knowledge_row(1), PASSAGES[0], PASSAGES, 17)
    assert row["messages"][0]["content"].endswith("\n\nWhat is it?")
    assert row["messages"][1]["content"] == "It is this."
    assert (row["source"], row["source_row"], row["leaf"]) == ("raft", "row 1", "a")
    assert row["id"] != "row 1" and json.loads(row["metadata"])["document"] == "d"


def test_the_draw_is_the_rows_own():
    assert raft_row(knowledge_row(1), PASSAGES[0], PASSAGES, 17) == raft_row(knowledge_row(1), PASSAGES[0], PASSAGES, 17)
    draws = {
        raft_row(knowledge_row(n), PASSAGES[0], PASSAGES, seed)["messages"][0]["content"] for n in range(9) for seed in (1, 2)
    }
    assert len(draws) > 12


def test_a_leaf_with_few_passages_shows_what_it_has():
    alone = raft_row(knowledge_row(1), PASSAGES[0], PASSAGES[:1], 17)
    assert documents(alone) == PASSAGES[:1]
    for n in range(20):
        assert 1 <= len(documents(raft_row(knowledge_row(n), PASSAGES[0], PASSAGES[:2], 17))) <= 2
