"""Curation with people's word before the rules'."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lab_pipeline.curation.duplicates import Duplicates
from lab_pipeline.taxonomy.reviews import Review, review_of, row_text
from lab_pipeline.text.words import content_words

BANNED = "banned"
"""The rule under which the funnel counts rows that people banned."""

Rows = list[dict[str, Any]]


def curate_reviewed(rows: Rows, reviews: Sequence[Review], curate: Callable[[Rows], tuple[Rows, Rows]]) -> tuple[Rows, Rows]:
    """What `curate` gives, but a banned row is rejected whatever the rules say, and a pinned one kept.

    A row that says the same as a banned one is banned with it, for people only ever saw one of them; one that asks the same as
    a pinned one is a duplicate. An incomplete row cannot be kept even if it is pinned. The checks on whole data sets still hold
    for pinned rows: one that repeats a held-out question is left out there.
    """
    if not reviews:
        return curate(rows)
    decided = {row["id"]: review for row in rows if (review := review_of(reviews, row["id"], row_text(row)))}
    banned = {name for name, review in decided.items() if review.decision == "ban"}
    pinned = {row["id"]: row for row in rows if row["id"] in decided.keys() - banned and not row["fault"]}
    asked, unwanted = Duplicates(), Duplicates()
    for row in pinned.values():
        asked.add(row)
    answers = {}
    for row in rows:
        if row["id"] in banned and not row["fault"]:
            unwanted.add(row)
            answers[row["id"]] = content_words(row["answer"])
    kept, rejected = curate([*pinned.values(), *(row for row in rows if row["id"] not in banned | pinned.keys())])
    doubles = []
    for row in (row for row in kept if row["id"] not in pinned):
        banned_one = unwanted.find(row)
        if banned_one and answers[banned_one] == content_words(row["answer"]):
            doubles.append({**row, "rule": BANNED, "reason": f"says the same as row {banned_one}, {decided[banned_one]}"})
        elif repeated := asked.find(row):
            doubles.append({**row, "rule": "duplicate", "reason": f"asks the same as row {repeated}"})
    gone = {row["id"] for row in doubles}
    kept = [row for row in kept if row["id"] not in gone] + [_unruled(row) for row in rejected if row["id"] in pinned]
    rejected = [row for row in rejected if row["id"] not in pinned] + doubles
    as_if_kept, as_if_rejected = curate([row for row in rows if row["id"] in banned])  # for the columns that curation adds
    rejected += [{**row, "rule": BANNED, "reason": str(decided[row["id"]])} for row in (*as_if_kept, *as_if_rejected)]
    place = {row["id"]: number for number, row in enumerate(rows)}
    return sorted(kept, key=lambda row: place[row["id"]]), sorted(rejected, key=lambda row: place[row["id"]])


def _unruled(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in ("rule", "reason")}
