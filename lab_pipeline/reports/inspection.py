"""Show people the kept and the rejected rows of a leaf, with the reason of each rejection, and record their decisions."""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.formats import printable
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import CuratedRow, RejectedRow
from lab_pipeline.core.storage import read_rows
from lab_pipeline.curation.reviewed import BANNED
from lab_pipeline.datasets.dataset import excluded_rows
from lab_pipeline.instructions.plan import leaf_state
from lab_pipeline.reports.lineage import advice_of, check_known
from lab_pipeline.taxonomy.reviews import Decision, Review, record_review, review_of, reviews_in_force, row_text
from lab_pipeline.taxonomy.snapshot import current_snapshot


@dataclass(frozen=True)
class LeafRows:
    """The rows of a leaf's last successful refresh, and all reviews of the leaf's rows, the last one last."""

    leaf: str
    funnel: dict[str, int]
    """Number of rows by stage."""
    rules_off: dict[str, str]
    """The rules of the flow that are off for the leaf, each with the reason."""
    shortfall: str | None
    """How many rows the leaf has, if fewer than wanted."""
    kept: list[CuratedRow]
    rejected: list[RejectedRow]
    excluded: list[tuple[str, RejectedRow]]
    """Kept rows that the current data sets left out, each with the name of the data set."""
    reviews: list[Review]

    def review_of(self, row: CuratedRow) -> Review | None:
        """Return the review in force for a row, None if it has none."""
        return review_of(self.reviews, row["id"], row_text(row))


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
    by_id = {row["id"]: row for row in kept}
    excluded: list[tuple[str, RejectedRow]] = [
        (stage, {**by_id[row["id"]], "rule": row["rule"], "reason": row["reason"]})
        for stage, row in excluded_rows(home)
        if row["leaf"] == leaf and row["id"] in by_id
    ]
    reviews = reviews_in_force(home, current_snapshot(home).reviews).get(leaf, [])
    return LeafRows(leaf, state.funnel, state.rules_off, state.shortfall, kept, rejected, excluded, reviews)


def described_rejects(rows: LeafRows) -> dict[str, Any]:
    """Describe the rows that curation rejected or the current data sets left out, each with its stage, rule and reason.

    Beside these `rows` stand the leaf's `funnel`, the rules that are off for it (`rules_off`), each with the reason, its
    `shortfall` if it has fewer rows than wanted, and under `excluded` the number of rows that data sets left out, by data set
    and rule. The stage of a row that a data set left out is the name of the data set.
    """
    described = [
        {**_described(rows, row), "stage": stage, "rule": row["rule"], "reason": row["reason"]}
        for stage, row in [*((stage_of(row["rule"]), row) for row in rows.rejected), *rows.excluded]
    ]
    excluded = Counter(f"{stage}: {row['rule']}" for stage, row in rows.excluded)
    return {
        "leaf": rows.leaf,
        "funnel": rows.funnel,
        "rules_off": rows.rules_off,
        "shortfall": rows.shortfall,
        "excluded": dict(excluded),
        "rows": described,
    }


def sampled_rows(rows: LeafRows, size: int, seed: int) -> dict[str, Any]:
    """Draw at most `size` of the kept rows at random by `seed`; describe them in the leaf's order, with the number kept."""
    chosen = sorted(random.Random(seed).sample(range(len(rows.kept)), min(size, len(rows.kept))))
    return {"leaf": rows.leaf, "kept": len(rows.kept), "rows": [_described(rows, rows.kept[index]) for index in chosen]}


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
        known |= {review.row: review.text for review in rows.reviews}
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
        say(printable(f"\n{number} of {len(unreviewed)}, {status}\n{row_block(_described(rows, row))}"))
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


def rejects_text(rejects: Mapping[str, Any]) -> str:
    """Render the result of `described_rejects` for a terminal: the counts, the rules that are off, then each row."""
    lines = [rejects["leaf"], *(f"{count:>8}  {stage}" for stage, count in rejects["funnel"].items())]
    lines += [f"{'':>8}  {rejects['shortfall']}"] if rejects["shortfall"] else []
    lines += [f"{count:>8}  of them left out of a data set, {where}" for where, count in rejects["excluded"].items()]
    lines += [f"{'off':>8}  {rule}: {why}" for rule, why in rejects["rules_off"].items()]
    for row in rejects["rows"]:
        lines += ["", f"{row['stage']}, {row['rule']}: {row['reason']}", row_block(row)]
    return printable("\n".join(lines))


def rows_text(sample: Mapping[str, Any]) -> str:
    """Render the result of `sampled_rows` for a terminal."""
    blocks = [row_block(row) for row in sample["rows"]]
    return printable("\n\n".join([f"{sample['leaf']}: {len(blocks)} of {sample['kept']} kept rows", *blocks]))


def row_block(row: Mapping[str, Any]) -> str:
    """Render one described row for a terminal: id, texts, document, scores, advice and review, without those that are empty."""
    texts = {"context": row["context"], "question": row["question"], "answer": row["answer"], "written from": row["support"]}
    if row["document"]:
        texts["document"] = f"{row['document']}, commit {row['document_commit']}"
    if row["scores"]:
        texts["scores"] = ", ".join(f"{judge} {score}" for judge, score in row["scores"].items())
    texts["advice"] = "\n".join(row["advice"])
    texts["review"] = row["review"]
    lines = [f"{name:<13} {text}".replace("\n", "\n" + " " * 14) for name, text in texts.items() if text]
    return "\n".join([f"row           {row['id']}", *lines])


def _described(rows: LeafRows, row: CuratedRow) -> dict[str, Any]:
    review = rows.review_of(row)
    shown = ("id", "context", "question", "answer", "support", "document", "document_commit")
    texts = {name: value for name, value in row.items() if name in shown}
    scores = {each["judge"]: "unreadable" if each["score"] is None else round(each["score"], 3) for each in row["scores"]}
    return {**texts, "scores": scores, "advice": advice_of(row), "review": str(review) if review else None}


def stage_of(rule: str) -> str:
    """Return the stage of the funnel at which a rule or a judge (`judge NAME`) rejects rows."""
    stages = {BANNED: "review", "no_reply": "generated", "incomplete": "generated"}
    return stages.get(rule, "judged" if rule.startswith("judge ") else "curated")


def _only_one(beginning: str, known: dict[str, str | None], leaf: str) -> str:
    found = sorted(row_id for row_id in known if row_id.startswith(beginning)) if beginning else []
    if len(found) != 1:
        hint = f": {', '.join(found[:5])}" if found else f"; `lab-pipeline rows {leaf}` and `rejects` show the ids"
        raise LabError(f"row {beginning}: {len(found) or 'no'} rows of {leaf} have an id that begins so{hint}")
    return found[0]
