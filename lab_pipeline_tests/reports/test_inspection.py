from __future__ import annotations

import json
from typing import Any

import pyarrow.parquet as pq
import pytest

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.rows import CURATED_SCHEMA, REJECTED_SCHEMA
from lab_pipeline.core.storage import read_json, read_rows, write_json, write_rows
from lab_pipeline.datasets.mix import mix_knowledge, mix_skills
from lab_pipeline.instructions.plan import leaf_state
from lab_pipeline.reports.inspection import (
    converse,
    described_rejects,
    leaf_rows,
    review_rows,
    row_block,
    sampled_rows,
)
from lab_pipeline.reports.lineage import as_text, row_lineage
from lab_pipeline.reports.search import Query
from lab_pipeline.taxonomy.reviews import read_reviews
from lab_pipeline_tests.builders import FREEFORM, GROUNDED, KNOWLEDGE
from lab_pipeline_tests.datasets.filled import FilledHome, half_good_home
from lab_pipeline_tests.taxonomy.test_reviews import RECIPE


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> FilledHome:
    return half_good_home(tmp_path_factory.mktemp("filled"))


def test_rejects_begin_with_counts_that_add_up_and_show_each_row_with_stage_rule_and_text(lab, run):
    rows = leaf_rows(lab.home, KNOWLEDGE)
    described = described_rejects(lab.home, Query(leaf=KNOWLEDGE))
    text = run("rejects", KNOWLEDGE, "--limit", "1000")
    counts = dict(described["funnel"])
    assert counts.pop("generated") == sum(counts.values()) == len(rows.kept) + len(described["rows"])
    assert len(rows.kept) > 3 and len(rows.rejected) > 3
    assert text.splitlines()[::2][:2] == [KNOWLEDGE, f"{described['funnel']['generated']:>8}  generated"]
    for row, shown in zip(rows.rejected, described["rows"], strict=True):
        assert shown["stage"] == ("generated" if row["fault"] else "curated")
        assert f"row           {row['id']}" in text and f"{shown['stage']}, {row['rule']}: {row['reason']}" in text


def test_rules_that_are_off_stand_below_the_counts(lab, run):
    state = lab.home.leaf(KNOWLEDGE) / "state.json"
    assert described_rejects(lab.home, Query(leaf=KNOWLEDGE))["rules_off"] == {}
    write_json(state, {**read_json(state), "rules_off": {"leaked_tag": "2 of 5 seed examples break it"}})
    described = described_rejects(lab.home, Query(leaf=KNOWLEDGE))
    assert described["rules_off"] == {"leaked_tag": "2 of 5 seed examples break it"}
    stages = len(described["funnel"])
    assert run("rejects", KNOWLEDGE).splitlines()[stages + 2] == "     off  leaked_tag: 2 of 5 seed examples break it"


def test_advice_is_shown_with_its_row_and_tables_of_earlier_releases_have_none(lab):
    advised = "unsupported_number: the number 12 is not in the source"
    curated = lab.home.leaf(KNOWLEDGE) / f"curated-{leaf_state(lab.home, KNOWLEDGE).curated}.parquet"
    kept = read_rows(curated)
    write_rows(curated, [{**row, "advice": [advised]} for row in kept], CURATED_SCHEMA)
    sample = sampled_rows(lab.home, Query(leaf=KNOWLEDGE), 1, 0)
    assert sample["rows"][0]["advice"] == [advised]
    assert f"advice        {advised}" in row_block(sample["rows"][0])
    traced = row_lineage(lab.home, kept[0]["id"])
    assert traced["advice"] == [advised]
    assert f"advice         {advised}" in as_text("row", traced)
    pq.write_table(pq.read_table(curated).drop_columns(["advice"]), curated)
    sample = sampled_rows(lab.home, Query(leaf=KNOWLEDGE), 1, 0)
    assert sample["rows"][0]["advice"] == [] and "advice " not in row_block(sample["rows"][0])
    traced = row_lineage(lab.home, kept[0]["id"])
    assert traced["advice"] == [] and "advice " not in as_text("row", traced)


def test_what_a_data_set_left_out_is_shown_too(lab, run):
    row = leaf_rows(lab.home, KNOWLEDGE).kept[0]
    asked = [{"id": "g", "category": "places", "question": row["question"], "answer": "-"}]
    mix_knowledge(lab.home, lab.catalog(), lab.heldout(asked), [], RECIPE, lab.settings)
    described = described_rejects(lab.home, Query(leaf=KNOWLEDGE))
    assert described["excluded"] == {"knowledge data set: held_out": 1}
    assert row["id"] in {each["id"] for each in described["rows"] if each["stage"] == "knowledge data set"}
    assert "       1  of them left out of a data set, knowledge data set: held_out" in run("rejects", KNOWLEDGE)
    (left_out,) = json.loads(run("rows", "--rule", "held_out", "--json"))["rows"]
    assert (left_out["id"], left_out["stage"], left_out["rule"]) == (row["id"], "knowledge data set", "held_out")


def test_what_a_data_set_left_out_is_shown_as_it_was_curated(lab):
    kept = leaf_rows(lab.home, GROUNDED).kept[0]
    asked = [{"id": "g", "category": "notes", "question": f"{kept['context']} {kept['question']}", "answer": "-"}]
    knowledge = mix_knowledge(lab.home, lab.catalog(), lab.heldout(asked), [], RECIPE, lab.settings)
    mix_skills(lab.home, lab.catalog(), lab.heldout(asked), [], RECIPE, lab.settings, knowledge)
    shown = next(row for row in described_rejects(lab.home, Query(leaf=GROUNDED))["rows"] if row["id"] == kept["id"])
    assert (shown["rule"], shown["context"], shown["question"]) == ("held_out", kept["context"], kept["question"])


def test_a_sample_is_of_kept_rows_and_of_the_size_asked_for(lab, run):
    kept = [row["id"] for row in leaf_rows(lab.home, KNOWLEDGE).kept]
    drawn = [[row["id"] for row in sampled_rows(lab.home, Query(leaf=KNOWLEDGE), 3, seed)["rows"]] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2] and len(drawn[0]) == 3 and set(drawn[0]) <= set(kept)
    assert [row["id"] for row in sampled_rows(lab.home, Query(leaf=KNOWLEDGE), 999, 0)["rows"]] == kept
    shown = run("rows", KNOWLEDGE, "--limit", "3")
    assert shown.startswith(f"{KNOWLEDGE}: 3 of {len(kept)} kept rows\n\nrow           ")


def test_rows_and_rejects_are_searched_by_text_and_rule_over_a_branch_or_all_leaves(lab, run):
    found = json.loads(run("rejects", "--rule", "asked_elsewhere", "--grep", "BANANAS", "--limit", "2", "--json"))
    assert found["total"] > len(found["rows"]) == 2
    assert all(row["rule"] == "asked_elsewhere" and "bananas" in row["question"] for row in found["rows"])
    assert found["funnel"]["generated"] == sum(count for stage, count in found["funnel"].items() if stage != "generated")
    shown = run("rejects", "knowledge", "--rule", "asked_elsewhere", "--grep", "bananas", "--limit", "2")
    assert shown.splitlines()[-1].startswith(f"{found['total'] - 2} more; --limit")
    kept = json.loads(run("rows", "compositional_skills", "--grep", "lamp", "--json", "--limit", "999"))
    assert len(kept["rows"]) == kept["kept"] > 0
    assert all("lamp" in f"{row['question']} {row['answer']} {row['context']}".lower() for row in kept["rows"])
    with pytest.raises(LabError, match="knowlege: no such leaf or branch; did you mean knowledge"):
        run("rows", "knowlege")


def test_a_leaf_that_is_unknown_or_has_no_rows_is_said(lab):
    with pytest.raises(LabError, match="no such leaf; did you mean knowledge/places/islands"):
        leaf_rows(lab.home, "knowledge/places/island")
    (lab.home.leaf(FREEFORM) / "state.json").unlink()
    with pytest.raises(LabError, match=f"{FREEFORM}: not refreshed yet"):
        leaf_rows(lab.home, FREEFORM)


def test_rows_are_called_by_the_beginning_of_their_ids_and_all_or_none_is_recorded(lab):
    first, second = (row["id"] for row in leaf_rows(lab.home, KNOWLEDGE).kept[:2])
    with pytest.raises(LabError, match="row zz: no rows of knowledge/places/islands"):
        review_rows(lab.home, KNOWLEDGE, "ban", [first, "zz"], "Anna", "why")
    with pytest.raises(LabError, match=r"row : no rows"):
        review_rows(lab.home, KNOWLEDGE, "ban", [""], "Anna", "why")
    assert read_reviews(lab.home.root / "reviews.yaml") == []
    made = review_rows(lab.home, KNOWLEDGE, "ban", [first[:12], second], "Anna", "why")
    assert [each.row for each in made] == [first, second] and made == read_reviews(lab.home.root / "reviews.yaml")
    assert leaf_rows(lab.home, KNOWLEDGE).review_of(leaf_rows(lab.home, KNOWLEDGE).kept[0]) == made[0]


def test_an_incomplete_row_cannot_be_pinned(lab):
    rows = leaf_rows(lab.home, KNOWLEDGE)
    table = lab.home.leaf(KNOWLEDGE)
    faulty = {**rows.kept[0], "id": "f" * 20, "answer": None, "fault": "answer empty", "rule": "incomplete", "reason": "-"}
    write_rows(table / f"rejected-{leaf_state(lab.home, KNOWLEDGE).curated}.parquet", [faulty], REJECTED_SCHEMA)
    with pytest.raises(LabError, match=r"cannot be pinned, because it is incomplete \(answer empty\)"):
        review_rows(lab.home, KNOWLEDGE, "pin", ["ffff"], "Anna", "why")
    assert [row["id"] for row in described_rejects(lab.home, Query(leaf=KNOWLEDGE))["rows"]] == ["f" * 20]


def test_a_conversation_records_each_answer_at_once_and_skips_what_was_reviewed(lab):
    kept = [row["id"] for row in leaf_rows(lab.home, KNOWLEDGE).kept]
    said: list[str] = []

    def answers(*given: str) -> Any:
        left = iter(given)
        return lambda prompt: next(left)

    assert converse(lab.home, KNOWLEDGE, "Anna", answers("?", "n", "ban", "wrong", "p", "", "Q"), said.append) == 1
    (review,) = read_reviews(lab.home.root / "reviews.yaml")
    assert (review.row, review.decision, review.author, review.reason) == (kept[1], "ban", "Anna", "wrong")
    assert "a review needs an author and a reason, neither of them blank" in said
    said.clear()
    converse(lab.home, KNOWLEDGE, "Anna", answers("n", "q"), said.append)
    assert kept[0] in said[0] and kept[1] not in said[1] and kept[2] in said[1]


def test_the_verbs(lab, run):
    row = leaf_rows(lab.home, KNOWLEDGE).kept[0]["id"]
    assert run("rejects", f"{KNOWLEDGE}/").startswith(KNOWLEDGE)
    assert json.loads(run("rows", KNOWLEDGE, "--sample", "2", "--json"))["rows"][1]["question"]
    with pytest.raises(LabError, match="needs a terminal"):
        run("review", KNOWLEDGE, "--author", "Anna")
    assert f"{row} banned by Anna" in run("review", KNOWLEDGE, "--ban", row, "--author", "Anna", "--reason", "wrong")
    lab.refresh(KNOWLEDGE)
    assert "review, banned: banned by Anna" in run("rejects", KNOWLEDGE)
    assert "review         banned by Anna" in run("lineage", "row", row)
    assert f"{row} review undone by Bea" in run("review", KNOWLEDGE, "--undo", row, "--author", "Bea", "--reason", "right")
