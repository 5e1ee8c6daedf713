"""Splitting a leaf's judged rows into kept and rejected ones, with the reason of every rejection."""

from __future__ import annotations

from collections import Counter
from typing import Any

from lab_pipeline.curation.duplicates import Duplicates
from lab_pipeline.curation.profile import Profile, profile
from lab_pipeline.curation.rules import Rule, applicable
from lab_pipeline.flows.flow import Flow, Judge


def curate(
    rows: list[dict[str, Any]], source: dict[str, Any], flow: Flow, grounding: dict[str, float] | None = None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(kept, rejected) rows of one leaf; together they are exactly the rows given, in their order.

    `grounding` has the rows' grounding scores by id, where they were measured.
    """
    leaf = profile(source)
    rules = applicable(source, flow.file.rules, leaf)
    kept, rejected = [], []
    earlier = Duplicates()
    for row in rows:
        row = {**row, "grounding": (grounding or {}).get(row["id"])}
        rule, reason = _verdict(row, flow, rules, leaf)
        if rule is None:
            if repeated := earlier.find(row):
                rule, reason = "duplicate", f"asks the same as row {repeated}"
            else:
                earlier.add(row)
        if rule is None:
            kept.append(row)
        else:
            rejected.append({**row, "rule": rule, "reason": reason})
    return kept, rejected


def _verdict(row: dict[str, Any], flow: Flow, rules: tuple[Rule, ...], leaf: Profile) -> tuple[str | None, str | None]:
    if refused := _refusal(row, flow.judges(early=True)):  # what else such a row lacks, it was never asked for
        return refused
    for rule in rules:
        reason = rule(row, flow.file.rules, leaf)
        if reason:
            return rule.__name__, reason
    return _refusal(row, flow.judges(early=False)) or (None, None)


def _refusal(row: dict[str, Any], judges: list[Judge]) -> tuple[str, str] | None:
    scores = {score["judge"]: score["score"] for score in row["scores"]}
    for judge in judges:
        if judge.gates and judge.name in scores:
            score = scores[judge.name]
            if score is None:
                return f"judge {judge.name} unreadable", "the judge's verdict could not be read"
            if score < judge.minimum:
                return f"judge {judge.name}", f"score {score:.2f} is below {judge.minimum:.2f}"
    return None


def funnel(generated: int, kept: int, rejected: list[dict[str, Any]]) -> dict[str, int]:
    """Rows by where they ended: `generated` = `kept` + the sum of all rules."""
    counts = Counter(row["rule"] for row in rejected)
    return {"generated": generated, **dict(counts.most_common()), "kept": kept}
