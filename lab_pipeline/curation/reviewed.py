"""Curation with people's word before the rules'."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lab_pipeline.curation.curate import curate
from lab_pipeline.curation.rules import question_identity
from lab_pipeline.flows.flow import Flow
from lab_pipeline.reviews import Review, review_of, row_text

BANNED = "banned"
"""The rule under which the funnel counts rows that people banned."""


def curate_reviewed(
    rows: list[dict[str, Any]], source: dict[str, Any], flow: Flow, reviews: Sequence[Review]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """`curate`, but a banned row is rejected whatever the rules say, and a pinned one kept.

    Another row with the question of a pinned one is a duplicate. An incomplete row cannot be kept even if it is pinned. The
    checks on whole data sets still hold for pinned rows: one that repeats a held-out question is left out there.
    """
    if not reviews:
        return curate(rows, source, flow)
    decided = {row["id"]: review for row in rows if (review := review_of(reviews, row["id"], row_text(row)))}
    pinned = {
        row["id"]: row for row in rows if row["id"] in decided and decided[row["id"]].decision == "pin" and not row["fault"]
    }
    banned = {name for name, review in decided.items() if review.decision == "ban"}
    kept, rejected = curate([row for row in rows if row["id"] not in banned | pinned.keys()], source, flow)
    asked = {question_identity(row): name for name, row in pinned.items()}
    duplicates = [row for row in kept if question_identity(row) in asked]
    kept = [row for row in kept if question_identity(row) not in asked] + list(pinned.values())
    rejected += [
        {**row, "rule": "duplicate", "reason": f"same question as row {asked[question_identity(row)]}"} for row in duplicates
    ]
    rejected += [{**row, "rule": BANNED, "reason": str(decided[row["id"]])} for row in rows if row["id"] in banned]
    place = {row["id"]: number for number, row in enumerate(rows)}
    return sorted(kept, key=lambda row: place[row["id"]]), sorted(rejected, key=lambda row: place[row["id"]])
