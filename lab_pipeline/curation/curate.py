"""Splitting a leaf's judged rows into kept and rejected ones, with the reason of every rejection."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa

from lab_pipeline.curation.rules import RULES, main_language, question_identity
from lab_pipeline.flows.flow import Flow, Judge
from lab_pipeline.flows.instructions import JUDGED_SCHEMA

CURATED_SCHEMA = JUDGED_SCHEMA

REJECTED_SCHEMA = JUDGED_SCHEMA.append(pa.field("rule", pa.string())).append(pa.field("reason", pa.string()))
"""A rejected row whole, with the rule that rejected it and what that rule found."""


def curate(rows: list[dict[str, Any]], source: dict[str, Any], flow: Flow) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(kept, rejected) rows of one leaf; together they are exactly the rows given, in their order."""
    language = main_language([f"{seed['question']} {seed['answer']}" for seed in source["seeds"]])
    kept, rejected = [], []
    seen: dict[str, str] = {}
    for row in rows:
        rule, reason = _verdict({**row, "language": language}, flow)
        if rule is None:
            identity = question_identity(row)
            if identity in seen:
                rule, reason = "duplicate", f"same question as row {seen[identity]}"
            else:
                seen[identity] = row["id"]
        if rule is None:
            kept.append(row)
        else:
            rejected.append({**row, "rule": rule, "reason": reason})
    return kept, rejected


def _verdict(row: dict[str, Any], flow: Flow) -> tuple[str | None, str | None]:
    if refused := _refusal(row, flow.judges(early=True)):  # what else such a row lacks, it was never asked for
        return refused
    for rule in RULES:
        reason = rule(row, flow.file.rules)
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
