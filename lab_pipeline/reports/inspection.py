"""A leaf's rows as people look at them: what was kept, what was rejected and why, and the word they have on each."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.formats import printable
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import read_rows
from lab_pipeline.curation.reviewed import BANNED
from lab_pipeline.datasets.dataset import excluded_rows
from lab_pipeline.instructions.plan import leaf_state
from lab_pipeline.reports.lineage import check_known
from lab_pipeline.taxonomy.reviews import Decision, Review, record_review, review_of, reviews_in_force, row_text
from lab_pipeline.taxonomy.snapshot import current_snapshot

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class LeafRows:
    """The rows of a leaf's last good refresh, and the reviews it has by now."""

    leaf: str
    funnel: dict[str, int]
    kept: Rows
    rejected: Rows
    excluded: Rows
    """Kept rows that the current data sets left out, with `stage` (the data set), `rule` and `reason`."""
    reviews: list[Review]

    def review_of(self, row: dict[str, Any]) -> Review | None:
        return review_of(self.reviews, row["id"], row_text(row))


def leaf_rows(home: Home, leaf: str) -> LeafRows:
    """The rows of a leaf.

    Raises:
        LabError: no such leaf is known, or it was never refreshed.
    """
    check_known(home, leaf)
    state = leaf_state(home, leaf)
    if state is None:
        raise LabError(f"{leaf}: not refreshed yet, so it has no rows; run `lab-pipeline retune`")
    kept, rejected = (read_rows(home.leaf(leaf) / f"{table}-{state.curated}.parquet") for table in ("curated", "rejected"))
    by_id = {row["id"]: row for row in kept}
    excluded = [{**row, **by_id[row["id"]]} for row in excluded_rows(home) if row["leaf"] == leaf and row["id"] in by_id]
    reviews = reviews_in_force(home, current_snapshot(home).reviews).get(leaf, [])
    return LeafRows(leaf, state.funnel, kept, rejected, excluded, reviews)


def described_rejects(rows: LeafRows) -> dict[str, Any]:
    """`funnel` and the `rows` that curation or the current data sets rejected, each with stage, rule, reason and scores."""
    return {
        "leaf": rows.leaf,
        "funnel": rows.funnel,
        "excluded": dict(Counter(f"{row['stage']}: {row['rule']}" for row in rows.excluded)),
        "rows": [
            {**_described(rows, row), "stage": _stage(row), "rule": row["rule"], "reason": row["reason"]}
            for row in rows.rejected + rows.excluded
        ],
    }


def sampled_rows(rows: LeafRows, size: int, seed: int) -> dict[str, Any]:
    """`rows`: that many of the kept ones, in their order; which, is the seed's choice."""
    chosen = sorted(random.Random(seed).sample(range(len(rows.kept)), min(size, len(rows.kept))))
    return {"leaf": rows.leaf, "kept": len(rows.kept), "rows": [_described(rows, rows.kept[index]) for index in chosen]}


def review_rows(home: Home, leaf: str, decision: Decision, names: list[str], author: str, reason: str) -> list[Review]:
    """Record one decision on several rows of a leaf; ids may be cut short where no other row's begins so.

    Raises:
        LabError: no row, or several, are called so; or an incomplete row is to be pinned. Then nothing is recorded.
    """
    rows = leaf_rows(home, leaf)
    known: dict[str, str | None] = {row["id"]: row_text(row) for row in rows.kept + rows.rejected}
    if decision == "undo":
        known |= {review.row: review.text for review in rows.reviews}
    found = [_only_one(name, known, leaf) for name in names]
    incomplete = {row["id"]: row["fault"] for row in rows.rejected if row["fault"]}
    for name in found:
        if decision == "pin" and name in incomplete:
            raise LabError(f"row {name}: cannot be pinned, for it is incomplete ({incomplete[name]})")
    return [record_review(home, leaf, name, known[name], decision, author, reason) for name in found]


def converse(home: Home, leaf: str, author: str, ask: Callable[[str], str], say: Callable[[str], None]) -> int:
    """Show each row that nobody reviewed yet, the kept ones first, and ask what shall become of it; how many got a decision.

    Each answer is recorded at once, so one may stop at any row.
    """
    rows = leaf_rows(home, leaf)
    open_rows = [row for row in rows.kept + rows.rejected if not rows.review_of(row)]
    reviewed = 0
    for number, row in enumerate(open_rows, 1):
        standing = f"rejected by {row['rule']}: {row['reason']}" if "rule" in row else "kept"
        say(printable(f"\n{number} of {len(open_rows)}, {standing}\n{row_block(_described(rows, row))}"))
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


def rejects_text(described: dict[str, Any]) -> str:
    """`described_rejects` for a terminal: the counts first."""
    lines = [described["leaf"], *(f"{count:>8}  {stage}" for stage, count in described["funnel"].items())]
    lines += [f"{count:>8}  of them left out of a data set, {where}" for where, count in described["excluded"].items()]
    for row in described["rows"]:
        lines += ["", f"{row['stage']}, {row['rule']}: {row['reason']}", row_block(row)]
    return printable("\n".join(lines))


def rows_text(described: dict[str, Any]) -> str:
    """`sampled_rows` for a terminal."""
    blocks = [row_block(row) for row in described["rows"]]
    return printable("\n\n".join([f"{described['leaf']}: {len(blocks)} of {described['kept']} kept rows", *blocks]))


def row_block(row: dict[str, Any]) -> str:
    """One described row for a terminal."""
    said = {"context": row["context"], "question": row["question"], "answer": row["answer"], "written from": row["support"]}
    if row["document"]:
        said["document"] = f"{row['document']}, commit {row['document_commit']}"
    if row["scores"]:
        said["scores"] = ", ".join(f"{name} {score}" for name, score in row["scores"].items())
    if row["review"]:
        said["review"] = row["review"]
    lines = [f"{name:<13} {_indented(text)}" for name, text in said.items() if text]
    return "\n".join([f"row           {row['id']}", *lines])


def _indented(text: str) -> str:
    return text.replace("\n", "\n" + " " * 14)


def _described(rows: LeafRows, row: dict[str, Any]) -> dict[str, Any]:
    review = rows.review_of(row)
    columns = ("id", "context", "question", "answer", "support", "document", "document_commit")
    return {
        **{name: row[name] for name in columns},
        "scores": {
            score["judge"]: "unreadable" if score["score"] is None else round(score["score"], 3) for score in row["scores"]
        },
        "review": str(review) if review else None,
    }


def _stage(row: dict[str, Any]) -> str:
    """Where a row fell out of the funnel."""
    if "stage" in row:
        return str(row["stage"])
    if row["rule"] == BANNED:
        return "review"
    if row["rule"] in ("no_reply", "incomplete"):
        return "generated"
    return "judged" if row["rule"].startswith("judge ") else "curated"


def _only_one(beginning: str, known: dict[str, str | None], leaf: str) -> str:
    found = sorted(name for name in known if name.startswith(beginning)) if beginning else []
    if len(found) != 1:
        some = f": {', '.join(found[:5])}" if found else f"; `lab-pipeline rows {leaf}` and `rejects` show the ids"
        raise LabError(f"row {beginning}: {len(found) or 'no'} rows of {leaf} have an id that begins so{some}")
    return found[0]
