from __future__ import annotations

from typing import Any

import pytest

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.rows import CURATED_SCHEMA
from lab_pipeline.core.storage import read_rows, write_rows
from lab_pipeline.datasets.mix import mix_knowledge
from lab_pipeline.instructions.plan import leaf_state
from lab_pipeline.reports import search
from lab_pipeline.reports.search import Query, find_row, find_rows, refreshed_leaves
from lab_pipeline_tests.builders import FREEFORM, GROUNDED, KNOWLEDGE
from lab_pipeline_tests.taxonomy.test_reviews import RECIPE


def stored(home: Any) -> list[dict[str, Any]]:
    """All rows in the order of the pages: by leaf, the kept before the rejected."""
    rows = []
    for state in refreshed_leaves(home):
        for table in ("curated", "rejected"):
            rows += read_rows(home.leaf(state.leaf) / f"{table}-{state.curated}.parquet")
    return rows


def ids(home: Any, **query: Any) -> list[str]:
    found = find_rows(home, refreshed_leaves(home), Query(**query), count=10_000)
    assert found.total == len(found.rows)
    return [each["row"]["id"] for each in found.rows]


@pytest.fixture(params=[7, 1 << 15], ids=["seven rows at once", "all rows at once"])
def home(request, filled, monkeypatch):
    monkeypatch.setattr(search, "_BATCH_ROWS", request.param)
    monkeypatch.setattr(search, "_PAGE_BATCH_ROWS", request.param)
    return filled.home


def test_pages_together_are_all_rows_in_order(home):
    rows = stored(home)
    pages = [find_rows(home, refreshed_leaves(home), Query(), offset, 10) for offset in range(0, len(rows) + 10, 10)]
    assert {page.total for page in pages} == {len(rows)} and pages[-1].rows == []
    assert [each["row"] for page in pages for each in page.rows] == rows


def test_each_condition_finds_what_a_plain_look_at_all_rows_finds(home):
    rows = stored(home)

    def those(wanted) -> list[str]:
        found = [row["id"] for row in rows if wanted(row)]
        assert 0 < len(found) < len(rows)
        return found

    assert ids(home, status="kept") == those(lambda row: "rule" not in row)
    assert ids(home, status="rejected") == those(lambda row: "rule" in row)
    assert ids(home, leaf=GROUNDED) == those(lambda row: row["leaf"] == GROUNDED)
    assert ids(home, leaf="compositional_skills/") == those(lambda row: row["leaf"].startswith("compositional_skills/"))
    assert ids(home, rule="duplicate") == those(lambda row: row.get("rule") == "duplicate")
    assert ids(home, stage="curated") == those(lambda row: "rule" in row)
    assert ids(home, text="BANANAS") == those(lambda row: "bananas" in row["question"])
    assert ids(home, text="by friday", leaf=GROUNDED, status="kept") == those(
        lambda row: row["leaf"] == GROUNDED and "by Friday" in f"{row['context']} {row['answer']}"
    )
    assert ids(home, id=rows[3]["id"][:12]) == [rows[3]["id"]]


@pytest.mark.parametrize(
    "query",
    [
        {"leaf": "compositional_skills/extract"},
        {"text": "no row says this"},
        {"rule": "none"},
        {"stage": "judged"},
        {"judge": "x"},
    ],
)
def test_nothing_is_found_where_nothing_is(home, query):
    assert ids(home, **query) == []


def test_a_text_is_taken_as_it_stands(home):
    assert ids(home, text="?") and not ids(home, text=".*\\bananas") and not ids(home, text="%")


def test_case_matters_in_no_alphabet(lab):
    table = lab.home.leaf(FREEFORM) / f"curated-{leaf_state(lab.home, FREEFORM).curated}.parquet"
    first, second, *others = read_rows(table)
    write_rows(table, [{**first, "answer": "Eine ÜBUNG, und Ёлка."}, {**second, "answer": "A DRILL."}, *others], CURATED_SCHEMA)
    assert ids(lab.home, text="eine Übung, und ёЛКА") == [first["id"]]
    assert ids(lab.home, text="a Drill.") == [second["id"]]
    write_rows(table, [{**second, "answer": "A DRILL."}, *others], CURATED_SCHEMA)  # not a letter that is not ASCII
    assert ids(lab.home, text="a Drill.") == [second["id"]] and ids(lab.home, text="ÜBUNG") == []


def test_scores_are_those_of_one_judge_or_of_any(lab):
    table = lab.home.leaf(FREEFORM) / f"curated-{leaf_state(lab.home, FREEFORM).curated}.parquet"
    rows = read_rows(table)
    scores = [[("a", 0.2), ("b", 0.9)], [("a", 0.8)], [("b", None)], []]
    for row, given in zip(rows, scores, strict=False):
        row["scores"] = [{"judge": judge, "score": score, "verdict": "-"} for judge, score in given]
    write_rows(table, rows, CURATED_SCHEMA)
    numbers = {row["id"]: number for number, row in enumerate(rows)}

    def found(**query: Any) -> list[int]:
        return [numbers[each] for each in ids(lab.home, leaf=FREEFORM, **query)]

    assert found(judge="a") == [0, 1] and found(judge="b") == [0]
    assert found(judge="a", least=0.5) == [1] and found(judge="a", most=0.2) == [0] and found(least=0.85) == [0]
    assert found(judge="a", least=0.3, most=0.7) == []


def test_a_table_that_is_written_anew_is_searched_as_it_is_now(lab):
    table = lab.home.leaf(FREEFORM) / f"curated-{leaf_state(lab.home, FREEFORM).curated}.parquet"
    first, *others = read_rows(table)
    assert ids(lab.home, text="quite unheard of") == []
    write_rows(table, [*others, {**first, "answer": "Quite unheard of, and long enough. " * 40}], CURATED_SCHEMA)
    assert ids(lab.home, text="quite unheard of") == [first["id"]]


def test_what_a_data_set_left_out_is_found_with_its_reason(lab):
    row = find_rows(lab.home, refreshed_leaves(lab.home), Query(leaf=KNOWLEDGE, status="kept")).rows[0]["row"]
    asked = [{"id": "g", "category": "places", "question": row["question"], "answer": "-"}]
    mix_knowledge(lab.home, lab.catalog(), lab.heldout(asked), [], RECIPE, lab.settings)
    assert ids(lab.home, stage="knowledge data set") == [row["id"]] == ids(lab.home, rule="held_out")
    found = find_row(lab.home, KNOWLEDGE, row["id"])
    assert (found["stage"], found["rule"]) == ("knowledge data set", "held_out") and found["reason"]
    assert row["id"] not in ids(lab.home, stage="skills data set")


def test_a_row_that_a_refresh_replaced_is_said(filled):
    with pytest.raises(LabError, match=f"{KNOWLEDGE} has no row ffff now"):
        find_row(filled.home, KNOWLEDGE, "ffff")
