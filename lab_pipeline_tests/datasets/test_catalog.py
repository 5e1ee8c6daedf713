from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lab_pipeline.core.errors import NotMaterialized
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import CATALOG_SCHEMA
from lab_pipeline.datasets.catalog import build_catalog, curated_rows, current_catalog, store_catalog
from lab_pipeline.instructions.plan import find_stale_leaves
from lab_pipeline.taxonomy.withdrawals import record_withdrawal
from lab_pipeline_tests.builders import FREEFORM, GROUNDED, KNOWLEDGE, edit_yaml, write_skill
from lab_pipeline_tests.datasets.filled import FilledHome
from lab_pipeline_tests.scripted_teacher import ScriptedTeacher


def qna(lab: FilledHome, leaf: str) -> Path:
    return lab.taxonomy / leaf / "qna.yaml"


def test_refreshed_leaves_are_current_and_stand_for_their_rows(untouched):
    catalog = untouched.catalog()
    assert len(catalog.leaves) == len(catalog.in_use) == 4
    assert catalog.stale == []
    for entry in catalog.leaves:
        assert entry.keys() == set(CATALOG_SCHEMA.names)
        rows = curated_rows(untouched.home, entry)
        assert (entry["state"], entry["note"], entry["rows"]) == ("current", None, len(rows))
        assert 0 < entry["rows"] <= entry["generated"]
        assert {row["leaf"] for row in rows} == {entry["leaf"]}


def test_a_changed_leaf_is_behind_with_its_last_good_rows(lab):
    before = lab.entry(FREEFORM)
    edit_yaml(qna(lab, FREEFORM), lambda value: value.update(task_description="Do it otherwise."))
    after = lab.entry(FREEFORM)
    assert after == {**before, "state": "behind", "note": "not refreshed yet"}
    assert lab.catalog().stale == [FREEFORM]


def test_a_leaf_whose_refresh_failed_says_why(lab):
    def refuses(request: object) -> str:
        raise RuntimeError("no teacher today")

    edit_yaml(qna(lab, FREEFORM), lambda value: value.update(task_description="Do it otherwise."))
    lab.refresh(FREEFORM, teacher=ScriptedTeacher(refuses))
    entry = lab.entry(FREEFORM)
    assert (entry["state"], entry["rows"] > 0) == ("behind", True)
    assert "no teacher today" in entry["note"]


def test_a_broken_leaf_is_quarantined_with_its_last_good_rows(lab):
    before = lab.entry(GROUNDED)
    edit_yaml(qna(lab, GROUNDED), lambda value: value.pop("created_by"))
    after = lab.entry(GROUNDED)
    assert after["state"] == "quarantined"
    assert "last good rows in use" in after["note"] and "created_by" in after["note"]
    assert {key: after[key] for key in ("kind", "rows", "curated", "content", "source")} == {
        key: before[key] for key in ("kind", "rows", "curated", "content", "source")
    }
    assert GROUNDED in [entry["leaf"] for entry in lab.catalog().in_use]


def test_without_generation_a_broken_leaf_gives_no_rows_of_a_teacher_either(lab):
    edit_yaml(qna(lab, GROUNDED), lambda value: value.pop("created_by"))
    snapshot = lab.snapshot()
    broken = next(entry for entry in build_catalog(lab.home, snapshot, {}, False).leaves if entry["leaf"] == GROUNDED)
    assert (broken["state"], broken["rows"], broken["source"]) == ("quarantined", 0, None)
    assert "last good rows" not in broken["note"]


def test_a_leaf_that_was_never_good_has_no_rows(lab):
    write_skill(lab.taxonomy, "compositional_skills/new")
    edit_yaml(write_skill(lab.taxonomy, "compositional_skills/broken"), lambda value: value.pop("created_by"))
    missing, broken = lab.entry("compositional_skills/new"), lab.entry("compositional_skills/broken")
    assert (missing["state"], missing["note"]) == ("missing", "not refreshed yet")
    assert broken["state"] == "quarantined" and "last good rows" not in broken["note"]
    for entry in (missing, broken):
        assert (entry["rows"], entry["curated"], entry["content"]) == (0, None, None)
        assert entry["leaf"] not in [used["leaf"] for used in lab.catalog().in_use]
    assert lab.catalog().stale == ["compositional_skills/new"]


def test_a_removed_leaf_is_not_in_the_catalog_though_its_rows_are_kept(lab):
    shutil.rmtree(lab.taxonomy / KNOWLEDGE)
    assert KNOWLEDGE not in [entry["leaf"] for entry in lab.catalog().leaves]
    assert list(lab.home.leaf(KNOWLEDGE).glob("curated-*.parquet"))


def test_a_withdrawn_leaf_gives_no_rows_and_no_questions_and_is_not_refreshed_until_that_is_undone(lab):
    before, contents = lab.entry(FREEFORM), lab.catalog().contents
    record_withdrawal(lab.home, FREEFORM, "Anna", "wrong licence")
    edit_yaml(qna(lab, FREEFORM), lambda value: value.update(task_description="Do it otherwise."))
    entry, catalog = lab.entry(FREEFORM), lab.catalog()
    assert (entry["state"], entry["rows"], entry["curated"], entry["content"]) == ("withdrawn", 0, None, None)
    assert entry["note"].startswith("withdrawn by Anna on") and entry["note"].endswith("wrong licence")
    assert catalog.stale == find_stale_leaves(lab.home, lab.plans(lab.snapshot())) == []
    assert catalog.contents == {leaf: content for leaf, content in contents.items() if leaf != FREEFORM}
    assert FREEFORM not in lab.heldout()["leaves"]
    record_withdrawal(lab.home, FREEFORM, "Anna", "it was right", withdrawn=False)
    assert lab.entry(FREEFORM) == {**before, "state": "behind", "note": "not refreshed yet"}
    assert find_stale_leaves(lab.home, lab.plans(lab.snapshot())) == [FREEFORM]


def test_the_content_changes_with_the_rows_only(lab):
    before = lab.entry(FREEFORM)
    edit_yaml(qna(lab, FREEFORM), lambda value: value.update(created_by="someone else"))
    lab.refresh()
    assert lab.entry(FREEFORM)["content"] == before["content"]
    edit_yaml(qna(lab, FREEFORM), lambda value: value.update(task_description="Do it otherwise."))
    lab.refresh(teacher=ScriptedTeacher(lambda request: f"Rather: {request.seed % 97} {request.messages[-1].content}"[:200]))
    assert lab.entry(FREEFORM)["content"] != before["content"]


def test_the_current_catalog_is_the_one_built_last(lab, tmp_path):
    snapshot = lab.snapshot()
    built = build_catalog(lab.home, snapshot, lab.plans(snapshot), True)
    store_catalog(lab.home, built)
    assert current_catalog(lab.home) == built
    with pytest.raises(NotMaterialized):
        current_catalog(Home.open(tmp_path / "empty"))
