"""Curate a leaf's rows so that people's reviews overrule the rules."""

from collections.abc import Callable, Sequence

from lab_pipeline.core.rows import CuratedRow, JudgedRow, RejectedRow
from lab_pipeline.curation.duplicates import Duplicates
from lab_pipeline.taxonomy.reviews import Review, review_of, row_text
from lab_pipeline.text.words import content_words

BANNED = "banned"
"""The rule under which the funnel counts rows that people banned."""

Curated = tuple[list[CuratedRow], list[RejectedRow]]


def curate_reviewed(
    rows: Sequence[JudgedRow], reviews: Sequence[Review], curate: Callable[[Sequence[JudgedRow]], Curated]
) -> Curated:
    """Split rows into (kept, rejected) by `curate`, but reject banned rows and keep pinned rows whatever `curate` decides.

    A row that asks and answers the same as a banned row is banned too, since people saw only one of the two. A row that asks
    the same as a pinned row is rejected as `duplicate`. A pinned row is rejected if it is incomplete. The checks on whole data
    sets hold for pinned rows too: a pinned row that repeats a held-out question is left out of the data set. Both lists keep
    the order of `rows`.
    """
    if not reviews:
        return curate(rows)
    decided = {row["id"]: review for row in rows if (review := review_of(reviews, row["id"], row_text(row)))}
    banned = {row for row, review in decided.items() if review.decision == "ban"}
    pinned = {row["id"]: row for row in rows if row["id"] in decided.keys() - banned and not row["fault"]}
    like_pinned, like_banned = Duplicates(), Duplicates()
    for row in pinned.values():
        like_pinned.add(row)
    banned_answers = {}
    for row in rows:
        if row["id"] in banned and not row["fault"]:
            like_banned.add(row)
            banned_answers[row["id"]] = content_words(row["answer"])

    kept, rejected = curate([*pinned.values(), *(row for row in rows if row["id"] not in banned | pinned.keys())])
    still_kept: list[CuratedRow] = []
    still_rejected: list[RejectedRow] = []
    for one in kept:
        repeats = None if one["id"] in pinned else like_banned.find(one)
        if repeats and banned_answers[repeats] == content_words(one["answer"]):
            still_rejected.append({**one, "rule": BANNED, "reason": f"says the same as row {repeats}, {decided[repeats]}"})
        elif one["id"] not in pinned and (repeats := like_pinned.find(one)):
            still_rejected.append({**one, "rule": "duplicate", "reason": f"asks the same as row {repeats}"})
        else:
            still_kept.append(one)
    for lost in rejected:
        if lost["id"] in pinned:
            still_kept.append({**pinned[lost["id"]], "advice": lost["advice"]})
        else:
            still_rejected.append(lost)
    kept, rejected = curate([row for row in rows if row["id"] in banned])  # adds columns; its verdict is overruled
    still_rejected += [{**one, "rule": BANNED, "reason": str(decided[one["id"]])} for one in (*kept, *rejected)]

    place = {row["id"]: number for number, row in enumerate(rows)}
    still_kept.sort(key=lambda row: place[row["id"]])
    still_rejected.sort(key=lambda row: place[row["id"]])
    return still_kept, still_rejected
