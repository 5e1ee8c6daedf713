from __future__ import annotations

from datetime import date
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lab_pipeline.core.storage import digest
from lab_pipeline.curation.curate import Curation
from lab_pipeline.curation.profile import profile
from lab_pipeline.taxonomy.reviews import Decision, Review, row_text
from lab_pipeline_tests.curation.test_curate import FLOW, SOURCE, row


def review(of: dict[str, Any], decision: Decision) -> Review:
    known = {"row": digest(of["id"]), "text": row_text(of)}
    return Review(leaf="knowledge/a", decision=decision, author="Anna", reason="why", at=date(2026, 3, 1), **known)


def curate_reviewed(rows: list[dict[str, Any]], reviews: list[Review]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return Curation(profile(SOURCE), FLOW, reviews).split(rows)  # type: ignore[arg-type]


def test_a_banned_row_goes_and_the_next_with_its_question_takes_its_place():
    rows = [row("first"), row("again", answer="The city was founded by Pellira Donsk.")]
    kept, rejected = curate_reviewed(rows, [review(rows[0], "ban")])
    assert [each["id"] for each in kept] == ["again"]
    assert rejected == [{**rows[0], "rule": "banned", "reason": "banned by Anna on 2026-03-01: why"}]


def test_a_pinned_row_stays_and_another_with_its_question_goes():
    rows = [row("good"), row("other", "Osmerel"), row("pinned", answer="By bananas, of which nobody knows.")]
    kept, rejected = curate_reviewed(rows, [review(rows[2], "pin")])
    assert [each["id"] for each in kept] == ["other", "pinned"]
    assert [(each["id"], each["rule"], each["reason"]) for each in rejected] == [
        ("good", "duplicate", "asks the same as row pinned")
    ]


def test_an_incomplete_row_is_not_kept_though_it_is_pinned():
    rows = [row("a", fault="answer empty", answer=None)]
    assert [each["rule"] for each in curate_reviewed(rows, [review(rows[0], "pin")])[1]] == ["incomplete"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Harsk", "Osmerel"]),
            st.sampled_from([{}, {"fault": "answer empty"}, {"answer": "Nobody knows of bananas."}]),
            st.sampled_from([None, "ban", "pin", "undo"]),
        ),
        max_size=8,
    )
)
def test_every_row_is_kept_or_rejected_once_in_order_and_people_have_the_last_word(drawn):
    rows = [row(str(number), place, **columns) for number, (place, columns, _) in enumerate(drawn)]
    reviews = [review(each, said) for each, (_, _, said) in zip(rows, drawn, strict=True) if said]
    kept, rejected = curate_reviewed(rows, reviews)
    names = [[each["id"] for each in part] for part in (kept, rejected)]
    assert sorted(names[0] + names[1]) == sorted(each["id"] for each in rows)
    assert all(part == sorted(part, key=int) for part in names)
    last = {each.text: each.decision for each in reviews}
    assert not [each for each in kept if last.get(row_text(each)) == "ban"]
    assert {each["rule"] for each in rejected if last.get(row_text(each)) == "pin"} <= {"incomplete"}
