"""Split a leaf's judged rows into kept and rejected rows, with the reason of every rejection."""

from collections import Counter
from collections.abc import Mapping, Sequence

from lab_pipeline.core.rows import CuratedRow, FrozenLeaf, JudgedRow, RejectedRow
from lab_pipeline.curation.duplicates import Duplicates
from lab_pipeline.curation.profile import Profile, profile
from lab_pipeline.curation.rules import Rule, applicable
from lab_pipeline.flows.flow import Flow, Judge


def curate(
    rows: Sequence[JudgedRow], source: FrozenLeaf, flow: Flow, grounding: Mapping[str, float | None] | None = None
) -> tuple[list[CuratedRow], list[RejectedRow]]:
    """Split the rows of one leaf into (kept, rejected). Every row is in one of the two, in the order of `rows`.

    A row is rejected by a gating judge, by a rule, or as `duplicate` of an earlier row that was kept; it gets the columns
    `rule` and `reason`. All rows get the column `grounding`.

    Args:
        source: the leaf's frozen source, from which its profile is built.
        grounding: the measured grounding scores, by row id.
    """
    leaf = profile(source)
    rules = applicable(source, flow.file.rules, leaf)
    kept: list[CuratedRow] = []
    rejected: list[RejectedRow] = []
    earlier = Duplicates()
    for judged in rows:
        row: CuratedRow = {**judged, "grounding": (grounding or {}).get(judged["id"])}
        rejection = _broken_rule(row, flow, rules, leaf)
        if rejection is None and (repeated := earlier.find(row)):
            rejection = "duplicate", f"asks the same as row {repeated}"
        if rejection:
            rule, reason = rejection
            rejected.append({**row, "rule": rule, "reason": reason})
        else:
            earlier.add(row)
            kept.append(row)
    return kept, rejected


def _broken_rule(row: CuratedRow, flow: Flow, rules: tuple[Rule, ...], leaf: Profile) -> tuple[str, str] | None:
    """Return the (rule, reason) of the first check that rejects a row, None if all checks pass it."""
    # Early judges come first: rows that they stopped lack later columns, so the rules would call them incomplete.
    if rejection := _rejection_by_judge(row, flow.judges(early=True)):
        return rejection
    for rule in rules:
        if reason := rule(row, flow.file.rules, leaf):
            return rule.__name__, reason
    return _rejection_by_judge(row, flow.judges(early=False))


def _rejection_by_judge(row: JudgedRow, judges: Sequence[Judge]) -> tuple[str, str] | None:
    scores = {score["judge"]: score["score"] for score in row["scores"]}
    for judge in judges:
        if judge.gates and judge.name in scores:
            score = scores[judge.name]
            if score is None:
                return f"judge {judge.name} unreadable", "the judge's verdict could not be read"
            if score < judge.minimum:
                return f"judge {judge.name}", f"score {score:.2f} is below {judge.minimum:.2f}"
    return None


def funnel(generated: int, kept: int, rejected: Sequence[RejectedRow]) -> dict[str, int]:
    """Return the number of rows `generated`, rejected by each rule (the most frequent one first), and `kept`.

    The number generated is the sum of all the others.
    """
    counts = Counter(row["rule"] for row in rejected)
    return {"generated": generated, **dict(counts.most_common()), "kept": kept}
