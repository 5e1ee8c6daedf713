from __future__ import annotations

import re

import pytest

from lab_pipeline.core.rows import REJECTED_SCHEMA
from lab_pipeline.core.storage import read_json, write_json, write_rows
from lab_pipeline.instructions.plan import leaf_state
from lab_pipeline.pages.excerpts import excerpt_of
from lab_pipeline.reports.search import Query, find_row, find_rows, refreshed_leaves
from lab_pipeline.taxonomy.reviews import read_reviews
from lab_pipeline_tests.builders import GROUNDED, KNOWLEDGE
from lab_pipeline_tests.pages.visitor import Visitor


@pytest.fixture
def kept(lab):
    return find_rows(lab.home, refreshed_leaves(lab.home), Query(leaf=KNOWLEDGE, status="kept")).rows[0]["row"]


def test_a_page_says_how_many_rows_there_are_and_leads_to_the_next(visitor):
    first = visitor.text("rows")
    assert "1 to 50 of 123 rows." in first and "Page 1 of 3" in first
    assert "101 to 123 of 123 rows." in visitor.text("rows", number=3)
    assert "No rows on this page; there are 123." in visitor.text("rows", number=9)
    assert "No row meets all of this." in visitor.text("rows", text="no row says this")
    assert 'href="/rows?number=2&amp;status=kept"' in visitor.html("rows", status="kept")


def test_a_score_that_is_no_number_is_said(visitor):
    assert "least: expected a score such as 0.5, found 'high'" in visitor.text("rows", 400, least="high")
    assert visitor.text("rows", number="-1") == visitor.text("rows", number="x") == visitor.text("rows")


def test_a_row_shows_its_passage_in_the_document_its_flow_its_prompts_and_its_origin(visitor, kept, lab):
    html = visitor.html("row", leaf=KNOWLEDGE, id=kept["id"])
    passage = re.search(r'<mark class="passage">(.*?)<mark class="support">(.*?)</mark>(.*?)</mark>', html, re.DOTALL)
    assert passage and passage[2] == kept["support"]
    excerpt = excerpt_of(lab.home, kept)
    document = next((lab.taxonomy / "documents").iterdir()).read_text()
    assert (
        excerpt and excerpt.before.endswith("\n") and "".join(excerpt.passage).split() == document.split("## ")[1].split()[1:]
    )
    text = visitor.text("row", leaf=KNOWLEDGE, id=kept["id"])
    for shown in (
        kept["question"],
        "line 5",
        "simple_knowledge, version",
        "Teacher scripted",
        "question.yaml",
        "in none",
        kept["id"],
    ):
        assert shown in text


def test_a_prompt_that_changed_since_is_not_shown_for_the_one_that_was_asked(visitor, kept, lab):
    made = lab.home.provenance(KNOWLEDGE, leaf_state(lab.home, KNOWLEDGE).curated)
    stored = read_json(made)
    write_json(made, {**stored, "prompts": {"question.yaml": "0" * 20}})
    assert "Changed since, or not found: only its hash is known." in visitor.text("row", leaf=KNOWLEDGE, id=kept["id"])


def test_a_skills_row_has_no_passage_and_a_document_that_is_gone_is_said(visitor, kept, lab):
    grounded = find_rows(lab.home, refreshed_leaves(lab.home), Query(leaf=GROUNDED)).rows[0]["row"]
    assert "Passage" not in visitor.text("row", leaf=GROUNDED, id=grounded["id"])
    lab.home.leaf_source(leaf_state(lab.home, KNOWLEDGE).source).unlink()
    assert "is no longer in this home" in visitor.text("row", leaf=KNOWLEDGE, id=kept["id"])


def test_a_ban_is_recorded_in_the_visitors_name_and_the_next_curation_leaves_the_row_out(lab, kept, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "anna")
    visitor = Visitor(lab.home)
    visitor.send("review", 303, leaf=KNOWLEDGE, id=kept["id"], decision="ban", reason="not true")
    (review,) = read_reviews(lab.home.root / "reviews.yaml")
    assert (review.leaf, review.row, review.decision, review.author, review.reason) == (
        KNOWLEDGE,
        kept["id"],
        "ban",
        "anna",
        "not true",
    )
    assert "banned by anna" in visitor.text("row", leaf=KNOWLEDGE, id=kept["id"])
    lab.refresh(KNOWLEDGE)
    assert find_row(lab.home, KNOWLEDGE, kept["id"])["rule"] == "banned"
    assert kept["id"] not in visitor.html("rows", status="kept", leaf=KNOWLEDGE)
    card = visitor.send("review", 200, {"HX-Request": "true"}, leaf=KNOWLEDGE, id=kept["id"], decision="undo")
    assert 'value="pin"' in card and 'value="undo"' not in card
    assert [each.decision for each in read_reviews(lab.home.root / "reviews.yaml")] == ["ban", "undo"]


def test_a_review_that_cannot_be_recorded_is_said_where_it_was_made(visitor, kept, lab):
    card = visitor.send("review", 200, {"HX-Request": "true"}, leaf=KNOWLEDGE, id=kept["id"], decision="ban", reason=" ")
    assert "Say why: the reason is kept with the row" in card and card.lstrip().startswith("<article")
    assert "Say why" in visitor.send("review", 400, leaf=KNOWLEDGE, id=kept["id"], decision="ban")
    assert "expected ban, pin, undo" in visitor.send("review", 400, leaf=KNOWLEDGE, id=kept["id"], decision="burn")
    assert "expected the key of a leaf" in visitor.send("review", 400, decision="ban")
    visitor.send("review", 400, leaf=KNOWLEDGE, id="f" * 20, decision="ban", reason="r")
    assert read_reviews(lab.home.root / "reviews.yaml") == []


def test_an_incomplete_row_offers_no_pin(visitor, kept, lab):
    table = lab.home.leaf(KNOWLEDGE) / f"rejected-{leaf_state(lab.home, KNOWLEDGE).curated}.parquet"
    faulty = {**kept, "id": "f" * 20, "answer": None, "fault": "answer empty", "rule": "incomplete", "reason": "-"}
    write_rows(table, [faulty], REJECTED_SCHEMA)
    page = visitor.html("row", leaf=KNOWLEDGE, id="f" * 20)
    assert 'value="ban"' in page and 'value="pin"' not in page and "(no answer)" in page


def test_rejects_are_counted_by_rule_and_lead_to_their_rows(visitor):
    text = visitor.text("rejects")
    assert "88 of 123 generated rows were kept." in text
    assert text.index("duplicate curated 20 16.3 %") < text.index("asked_elsewhere curated 15 12.2 %")
    assert 'href="/rows?rule=duplicate&amp;status=rejected"' in visitor.html("rejects")
    assert "No row was rejected yet." in visitor.text("rejects", leaf=GROUNDED)


def test_the_page_of_rejects_tells_what_another_threshold_would_change(visitor):
    page = visitor.html("rejects", leaf=KNOWLEDGE)
    assert '<option value="off_topic">off_topic (now 0.6)</option>' in page
    told = visitor.text("rejects", leaf=KNOWLEDGE, threshold="off_topic", value="1")
    assert re.search(
        r"\d+ of \d+ rows would be kept; now \d+ are\. 0 more rows would be kept, \d+ would be rejected, in 1 leaf", told
    )
    refused = visitor.text("rejects", leaf=KNOWLEDGE, threshold="off_topic", value="<b>much</b>")
    assert "off_topic: Input should be a valid number" in refused and "would be kept" not in refused
