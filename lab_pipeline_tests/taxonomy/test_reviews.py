from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import CURATED_SCHEMA
from lab_pipeline.core.storage import digest, read_rows
from lab_pipeline.datasets.dataset import excluded_rows
from lab_pipeline.datasets.mix import mix_knowledge
from lab_pipeline.instructions.plan import find_stale_leaves, leaf_state
from lab_pipeline.reports.lineage import as_text, row_lineage
from lab_pipeline.taxonomy.reviews import Review, read_reviews, record_review, review_of, reviews_in_force, row_text
from lab_pipeline_tests.builders import FREEFORM, KNOWLEDGE
from lab_pipeline_tests.datasets.filled import FilledHome, half_good_home
from lab_pipeline_tests.scripted_teacher import ScriptedTeacher
from lab_pipeline_tests.training.runs import recipe

RECIPE = recipe(
    knowledge={"epochs": 1, "learning_rate": 1e-3, "general_replay": 0},
    skills={"epochs": 1, "learning_rate": 1e-3, "general_replay": 0, "phase_1_replay": 0.5},
)
ROW = digest("a row")


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> FilledHome:
    return half_good_home(tmp_path_factory.mktemp("filled"))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


def entry(**changed: Any) -> dict[str, Any]:
    good = {"leaf": KNOWLEDGE, "row": ROW, "decision": "ban", "author": "Anna", "reason": "wrong year", "at": "2026-03-01"}
    return {**good, **changed}


def table(lab: FilledHome, name: str, leaf: str = KNOWLEDGE) -> list[dict[str, Any]]:
    state = leaf_state(lab.home, leaf)
    assert state
    return read_rows(lab.home.leaf(leaf) / f"{name}-{state.curated}.parquet")


def say(lab: FilledHome, row: dict[str, Any], decision: Any) -> Review:
    return record_review(lab.home, row["leaf"], row["id"], row_text(row), decision, "Anna", "wrong year")


def mixed(lab: FilledHome) -> list[dict[str, Any]]:
    return mix_knowledge(lab.home, lab.catalog(), lab.heldout(), [], RECIPE, lab.settings).read()


def test_what_is_recorded_is_read_again_below_what_a_person_wrote(home):
    (home.root / "reviews.yaml").write_text("# ours\n" + yaml.safe_dump([entry(at=date(2026, 3, 1))]))
    made = record_review(home, KNOWLEDGE, digest("b"), None, "pin", "Jörg", "good: really")
    first, second = read_reviews(home.root / "reviews.yaml")
    assert str(first) == "banned by Anna on 2026-03-01: wrong year"
    assert second == made and (second.author, second.reason) == ("Jörg", "good: really")
    assert (home.root / "reviews.yaml").read_text().startswith("# ours\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("leaf: x", "reviews.yaml:1: expected a list"),
        (
            yaml.safe_dump([entry(), entry(decision="burn")], sort_keys=False),
            "reviews.yaml:9: decision: Input should be 'ban', 'pin' or 'undo', found 'burn'",
        ),
        (yaml.safe_dump([entry(reason="")], sort_keys=False), "reviews.yaml:5: reason: "),
        (yaml.safe_dump([entry(row="123")], sort_keys=False), "reviews.yaml:2: row: "),
        (yaml.safe_dump([entry(colour="red")], sort_keys=False), "colour: unknown key"),
        ("- [", "reviews.yaml:1: "),
        ("- 3", "reviews.yaml:1: expected a mapping, found 3"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(home, text, said):
    (home.root / "reviews.yaml").write_text(text)
    with pytest.raises(LabError, match=r"reviews\.yaml:\d+: ") as caught:
        reviews_in_force(home, [])
    assert said in str(caught.value)
    with pytest.raises(LabError, match=r"reviews\.yaml:\d+: "):
        record_review(home, KNOWLEDGE, ROW, None, "ban", "Anna", "why")
    assert (home.root / "reviews.yaml").read_text() == text


def test_an_entry_is_not_added_to_what_it_would_break(home):
    text = json.dumps([entry()])
    (home.root / "reviews.yaml").write_text(text)
    with pytest.raises(LabError, match="no entry can be added, each must begin with '- '"):
        record_review(home, KNOWLEDGE, ROW, None, "ban", "Anna", "why")
    assert (home.root / "reviews.yaml").read_text() == text


def test_a_review_without_author_or_reason_is_refused(home):
    for author, reason in (("", "why"), ("Anna", " ")):
        with pytest.raises(LabError, match="needs an author and a reason"):
            record_review(home, KNOWLEDGE, ROW, None, "ban", author, reason)
    assert not (home.root / "reviews.yaml").exists()


def test_the_last_word_counts_and_the_home_s_after_the_taxonomy_s(home):
    contributed = [entry(), entry(row=digest("b"), decision="pin")]
    assert str(review_of(reviews_in_force(home, contributed)[KNOWLEDGE], ROW, "")) == "banned by Anna on 2026-03-01: wrong year"
    record_review(home, KNOWLEDGE, ROW, None, "undo", "Bea", "it was right")
    in_force = reviews_in_force(home, contributed)[KNOWLEDGE]
    assert review_of(in_force, ROW, "") is None
    assert (review := review_of(in_force, digest("b"), "")) and review.decision == "pin"


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_row_is_known_by_its_text_whatever_its_case_and_space(question, answer):
    row = {**dict.fromkeys(CURATED_SCHEMA.names), "kind": "knowledge", "question": question, "answer": answer}
    spaced = {**row, "question": f"  {question}\n", "answer": f"{answer} "}
    assert row_text(row) == row_text(spaced)
    assert row_text(row) != row_text({**row, "answer": f"{answer} x"})


def test_a_banned_row_never_comes_in_costs_no_call_and_is_seen_by_the_next_retune(lab):
    row = table(lab, "curated")[0]
    before = lab.entry(KNOWLEDGE)
    made = next(each for each in mixed(lab) if each["source_row"] == row["id"])
    say(lab, row, "ban")
    assert find_stale_leaves(lab.home, lab.plans(lab.snapshot())) == [KNOWLEDGE]
    teacher = ScriptedTeacher()
    lab.refresh(KNOWLEDGE, teacher=teacher)
    assert teacher.requests == []
    banned = [each for each in table(lab, "rejected") if each["rule"] == "banned"]
    assert row["id"] in {each["id"] for each in banned} and {each["answer"] for each in banned} == {row["answer"]}
    assert all("by Anna on " in each["reason"] for each in banned), "what says the same goes with it"
    after = lab.entry(KNOWLEDGE)
    assert (after["state"], after["rows"]) == ("current", before["rows"] - 1)
    assert after["content"] != before["content"]
    assert row["id"] not in {each["source_row"] for each in mixed(lab)}
    state = leaf_state(lab.home, KNOWLEDGE)
    assert (
        state.funnel["banned"] == len(banned)
        and state.funnel["generated"] == sum(state.funnel.values()) - state.funnel["generated"]
    )
    for name in (made["id"], row["id"], row["id"][:10]):  # the data set that held it is still there
        found = row_lineage(lab.home, name)
        assert found["review"].startswith("banned by Anna on ") and found["datasets"]
        assert "review         banned by Anna" in as_text("row", found)
    say(lab, row, "undo")
    lab.refresh(KNOWLEDGE, teacher=teacher)
    assert teacher.requests == [] and lab.entry(KNOWLEDGE)["content"] == before["content"]


def test_a_ban_holds_at_once_where_the_leaf_is_behind_or_broken(lab):
    row = table(lab, "curated")[0]
    say(lab, row, "ban")
    behind = lab.entry(KNOWLEDGE)
    assert (behind["state"], behind["banned"]) == ("behind", [row["id"]])
    assert row["id"] not in {each["source_row"] for each in mixed(lab)}
    (lab.taxonomy / KNOWLEDGE / "qna.yaml").write_text("version: 3\n")
    broken = lab.entry(KNOWLEDGE)
    assert (broken["state"], broken["banned"], broken["content"]) == ("quarantined", [row["id"]], behind["content"])


def test_a_ban_survives_regeneration_by_the_row_s_text(lab):
    row = table(lab, "curated")[0]
    say(lab, row, "ban")
    lab.settings = lab.settings.model_copy(update={"seed": lab.settings.seed + 1})  # other examples, so all is generated anew
    (document,) = (lab.taxonomy / "documents").iterdir()
    document.write_text("An introduction that moves every span.\n\n" + document.read_text())
    lab.refresh(KNOWLEDGE)
    everything = table(lab, "curated") + table(lab, "rejected")
    assert row["id"] not in {each["id"] for each in everything}
    assert row["question"] in [each["question"] for each in table(lab, "rejected") if each["rule"] == "banned"]


def test_a_pinned_row_comes_in_although_a_rule_rejects_it(lab):
    rejected = next(each for each in table(lab, "rejected") if not each["fault"] and each["rule"] != "duplicate")
    say(lab, rejected, "pin")
    before = {each["id"] for each in table(lab, "curated")}
    teacher = ScriptedTeacher()
    lab.refresh(KNOWLEDGE, teacher=teacher)
    assert teacher.requests == []
    assert {each["id"] for each in table(lab, "curated")} == before | {rejected["id"]}
    assert rejected["id"] in {each["source_row"] for each in mixed(lab)}
    assert row_lineage(lab.home, rejected["id"])["review"].startswith("pinned by Anna")


def test_a_pinned_row_that_repeats_a_held_out_question_is_left_out_all_the_same_and_it_is_said(lab):
    row = table(lab, "curated")[0]
    say(lab, row, "pin")
    lab.refresh(KNOWLEDGE)
    asked = [{"id": "g", "category": "places", "question": row["question"], "answer": "-"}]
    data = mix_knowledge(lab.home, lab.catalog(), lab.heldout(asked), [], RECIPE, lab.settings)
    assert row["id"] not in {each["source_row"] for each in data.read()}
    assert [each["rule"] for _, each in excluded_rows(lab.home) if each["id"] == row["id"]] == ["held_out"]


def test_the_taxonomy_s_reviews_count_and_outlive_a_slip_of_the_pen(lab):
    row = table(lab, "curated", FREEFORM)[0]
    file = lab.taxonomy / "reviews.yaml"
    file.write_text(yaml.safe_dump([entry(leaf=FREEFORM, row=row["id"])]))
    assert find_stale_leaves(lab.home, lab.plans(lab.snapshot())) == [FREEFORM]
    lab.refresh(FREEFORM)
    assert [each["rule"] for each in table(lab, "rejected", FREEFORM) if each["id"] == row["id"]] == ["banned"]
    file.write_text("oops")
    broken = lab.snapshot()
    assert [note for note in broken.notes if "reviews.yaml:1: expected a list" in note]
    assert find_stale_leaves(lab.home, lab.plans(broken)) == []
    file.unlink()
    assert find_stale_leaves(lab.home, lab.plans(lab.snapshot())) == [FREEFORM]


def test_a_link_out_of_the_taxonomy_is_not_followed(lab, tmp_path):
    (tmp_path / "outside.yaml").write_text(yaml.safe_dump([entry()]))
    (lab.taxonomy / "reviews.yaml").symlink_to(tmp_path / "outside.yaml")
    assert lab.snapshot().reviews == []
