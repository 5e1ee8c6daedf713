"""Show people the kept and the rejected rows of a leaf, with the reason of each rejection, and record their decisions."""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.formats import did_you_mean, printable
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import CuratedRow, RejectedRow
from lab_pipeline.core.storage import read_rows
from lab_pipeline.instructions.plan import LeafState, leaf_state
from lab_pipeline.reports.lineage import advice_of, check_known, known_leaves, with_branches
from lab_pipeline.reports.search import FoundRow, Query, match_rows, refreshed_leaves
from lab_pipeline.taxonomy.reviews import Decision, Review, record_review, review_of, reviews_in_force, row_text
from lab_pipeline.taxonomy.snapshot import current_snapshot


def matching_leaves(home: Home, leaf: str) -> list[LeafState]:
    """Return the last good refreshes of a leaf, of all leaves below a branch, or with '' of all leaves.

    Raises:
        LabError: no such leaf or branch is known, or none of its leaves was ever refreshed.
    """
    states = [state for state in refreshed_leaves(home) if not leaf or f"{state.leaf}/".startswith(f"{leaf}/")]
    if not states:
        known = with_branches(known_leaves(home))
        if leaf and leaf not in known:
            raise LabError(f"{leaf}: no such leaf or branch; {did_you_mean(leaf, known)}")
        raise LabError(f"{leaf or home.root}: not refreshed yet, so it has no rows; run `lab-pipeline retune`")
    return states


def described_rejects(home: Home, query: Query, limit: int | None = None) -> dict[str, Any]:
    """Describe the rows that curation rejected or the current data sets left out, each with its stage, rule and reason.

    Beside these `rows` stand the `funnel` of the query's leaves, the rules that are off (`rules_off`), each with the reason,
    the `shortfall` of leaves with fewer rows than wanted, under `excluded` the number of rows that data sets left out, by data
    set and rule, and the `total` of rows that the query finds. The stage of a row that a data set left out is the name of the
    data set.

    Args:
        query: its `leaf`, `rule`, `stage` and `text` count; '' as its leaf means all leaves.
        limit: the most rows to describe; None means all.
    """
    states = matching_leaves(home, query.leaf)
    funnel: Counter[str] = Counter()
    for state in states:
        funnel.update(state.funnel)
    several = len(states) > 1
    rules_off = {f"{state.leaf}: {rule}" if several else rule: why for state in states for rule, why in state.rules_off.items()}
    short = [f"{state.leaf}: {state.shortfall}" if several else state.shortfall for state in states if state.shortfall]
    left_out = match_rows(home, states, Query(status="left out"))
    excluded = Counter(f"{each['stage']}: {each['rule']}" for each in left_out.read(range(left_out.total)))
    found: list[FoundRow] = []
    total = 0
    for status in ("rejected", "left out"):
        matches = match_rows(home, states, replace(query, status=status))
        most = matches.total if limit is None else min(matches.total, limit - len(found))
        found += matches.read(range(most))
        total += matches.total
    reviews = reviews_in_force(home, current_snapshot(home).reviews)
    return {
        "leaf": query.leaf,
        "funnel": {**{stage: count for stage, count in funnel.items() if stage != "kept"}, "kept": funnel["kept"]},
        "rules_off": rules_off,
        "shortfall": "; ".join(short) or None,
        "excluded": dict(excluded),
        "rows": [{**described(each["row"], reviews), **_fate(each)} for each in found],
        "total": total,
    }


def sampled_rows(home: Home, query: Query, size: int, seed: int) -> dict[str, Any]:
    """Draw at most `size` of the kept rows that a query finds at random by `seed`; describe them in order, with the number
    found."""
    found = match_rows(home, matching_leaves(home, query.leaf), replace(query, status="left out" if query.rule else "kept"))
    chosen = sorted(random.Random(seed).sample(range(found.total), min(size, found.total)))
    reviews = reviews_in_force(home, current_snapshot(home).reviews)
    rows = [{**described(each["row"], reviews), **(_fate(each) if each["stage"] else {})} for each in found.read(chosen)]
    return {"leaf": query.leaf, "kept": found.total, "rows": rows}


def _fate(found: FoundRow) -> dict[str, str]:
    return {"stage": found["stage"], "rule": found["rule"], "reason": found["reason"]}


@dataclass(frozen=True)
class LeafRows:
    """The rows of a leaf's last successful refresh, and all reviews of the leaf's rows, the last one last."""

    kept: list[CuratedRow]
    rejected: list[RejectedRow]
    reviews: dict[str, list[Review]]
    """By leaf."""

    def review_of(self, row: CuratedRow) -> Review | None:
        """Return the review in force for a row, None if it has none."""
        return review_of(self.reviews.get(row["leaf"], []), row["id"], row_text(row))


def leaf_rows(home: Home, leaf: str) -> LeafRows:
    """Read the rows of a leaf's last successful refresh, and the leaf's reviews.

    Raises:
        LabError: no such leaf is known, or it was never refreshed.
    """
    check_known(home, leaf)
    state = leaf_state(home, leaf)
    if state is None:
        raise LabError(f"{leaf}: not refreshed yet, so it has no rows; run `lab-pipeline retune`")
    kept: list[CuratedRow] = read_rows(home.leaf(leaf) / f"curated-{state.curated}.parquet")
    rejected: list[RejectedRow] = read_rows(home.leaf(leaf) / f"rejected-{state.curated}.parquet")
    return LeafRows(kept, rejected, reviews_in_force(home, current_snapshot(home).reviews))


def review_rows(home: Home, leaf: str, decision: Decision, ids: Sequence[str], author: str, reason: str) -> list[Review]:
    """Record one decision on several rows of a leaf, and return the reviews.

    Args:
        ids: ids of rows; the beginning of an id is enough where only one row of the leaf has it.

    Raises:
        LabError: an id fits no row or several, an incomplete row is to be pinned, or author or reason is blank. Nothing is
            recorded then.
    """
    rows = leaf_rows(home, leaf)
    known: dict[str, str | None] = {row["id"]: row_text(row) for row in (*rows.kept, *rows.rejected)}
    if decision == "undo":
        known |= {review.row: review.text for review in rows.reviews.get(leaf, [])}
    found = [_only_one(beginning, known, leaf) for beginning in ids]
    incomplete = {row["id"]: row["fault"] for row in rows.rejected if row["fault"]}
    for row_id in found:
        if decision == "pin" and row_id in incomplete:
            raise LabError(f"row {row_id}: cannot be pinned, because it is incomplete ({incomplete[row_id]})")
    return [record_review(home, leaf, row_id, known[row_id], decision, author, reason) for row_id in found]


def converse(home: Home, leaf: str, author: str, ask: Callable[[str], str], say: Callable[[str], None]) -> int:
    """Show each row without a review, the kept ones first, and ask whether to ban, pin or pass over it, or to quit.

    A ban or pin asks for a reason and is recorded at once, so that a person can stop at any row. A decision that cannot be
    recorded is passed to `say`, and the next row follows. Return the number of recorded decisions.
    """
    rows = leaf_rows(home, leaf)
    statuses = [(row, "kept") for row in rows.kept]
    statuses += [(row, f"rejected by {row['rule']}: {row['reason']}") for row in rows.rejected]
    unreviewed = [(row, status) for row, status in statuses if not rows.review_of(row)]
    reviewed = 0
    for number, (row, status) in enumerate(unreviewed, 1):
        say(printable(f"\n{number} of {len(unreviewed)}, {status}\n{row_block(described(row, rows.reviews))}"))
        answer = ""
        while answer not in ("b", "p", "n", "q"):
            answer = ask("[b]an, [p]in, [n]ext, [q]uit").strip().casefold()[:1]
        if answer == "q":
            break
        if answer != "n":
            decision: Literal["ban", "pin"] = "ban" if answer == "b" else "pin"
            try:
                (review,) = review_rows(home, leaf, decision, [row["id"]], author, ask("Reason"))
            except LabError as error:
                say(str(error))
                continue
            say(str(review))
            reviewed += 1
    return reviewed


def row_facts(row: Mapping[str, Any]) -> dict[str, str]:
    """Name what a terminal shows of a described row: id, texts, document, scores, advice and review."""
    return {
        "row": row["id"],
        "context": row["context"] or "",
        "question": row["question"] or "",
        "answer": row["answer"] or "",
        "written from": row["support"] or "",
        "document": f"{row['document']}, commit {row['document_commit']}" if row["document"] else "",
        "scores": ", ".join(f"{judge} {score}" for judge, score in row["scores"].items()),
        "advice": "\n".join(row["advice"]),
        "review": row["review"] or "",
    }


def row_block(row: Mapping[str, Any]) -> str:
    """Render one described row as text, without what is empty."""
    return "\n".join(f"{name:<13} {text}".replace("\n", "\n" + " " * 14) for name, text in row_facts(row).items() if text)


def described(row: CuratedRow, reviews: Mapping[str, Sequence[Review]]) -> dict[str, Any]:
    """Describe a row: id, texts, document, scores by judge, advice and the review in force."""
    review = review_of(reviews.get(row["leaf"], []), row["id"], row_text(row))
    shown = ("id", "context", "question", "answer", "support", "document", "document_commit")
    texts = {name: value for name, value in row.items() if name in shown}
    scores = {each["judge"]: "unreadable" if each["score"] is None else round(each["score"], 3) for each in row["scores"] or []}
    return {**texts, "scores": scores, "advice": advice_of(row), "review": str(review) if review else None}


def _only_one(beginning: str, known: dict[str, str | None], leaf: str) -> str:
    found = sorted(row_id for row_id in known if row_id.startswith(beginning)) if beginning else []
    if len(found) != 1:
        hint = f": {', '.join(found[:5])}" if found else f"; `lab-pipeline rows {leaf}` and `rejects` show the ids"
        raise LabError(f"row {beginning}: {len(found) or 'no'} rows of {leaf} have an id that begins so{hint}")
    return found[0]
