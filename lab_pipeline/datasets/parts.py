"""Which of a leaf's rows are kept from training to choose the epoch by.

Rows that were made from the same text, or ask nearly the same, form one group and stay together: a paraphrase among the
training rows would make of validation a test of memory.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from lab_pipeline.datasets.heldout import LeakDetector
from lab_pipeline.datasets.rows import as_prompt
from lab_pipeline.storage import digest

ENOUGH_ROWS = 10
"""A leaf with fewer rows spares none for validation."""


def validation_rows(rows: list[dict[str, Any]], seeds: list[str], share: float, random_seed: int) -> set[str]:
    """Ids of the curated rows of one leaf that validate: whole groups, chosen by hash, never more than `share` of the rows.

    Args:
        seeds: what the leaf's seeds in use ask; a group that asks nearly the same is for training, as they are.
    """
    if len(rows) < ENOUGH_ROWS:
        return set()
    taught = LeakDetector(seeds)
    groups = [{row["id"] for row in group} for group in _groups(rows) if not any(taught.leak(_asked(row)) for row in group)]
    chosen: set[str] = set()
    for group in sorted(groups, key=lambda group: digest([random_seed, "validation", min(group)])):
        if len(chosen | group) <= share * len(rows):
            chosen |= group
    return chosen


def _groups(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Rows joined by the same support or nearly the same question, directly or through others."""
    leader = list(range(len(rows)))
    known = LeakDetector()
    first: dict[str, int] = {}

    def lead(index: int) -> int:
        while leader[index] != index:
            leader[index] = index = leader[leader[index]]
        return index

    for index, row in enumerate(rows):
        asked = row["context"] or row["question"]  # a context outweighs what is asked about it
        near = [asked] if asked in first else known.leaks(asked)
        for text in (*near, row["support"] or ""):
            if text:
                leader[lead(first.setdefault(text, index))] = lead(index)
        if asked not in first:
            first[asked] = index
            known.add(asked)
    groups = defaultdict(list)
    for index, row in enumerate(rows):
        groups[lead(index)].append(row)
    return list(groups.values())


def _asked(row: dict[str, Any]) -> str:
    return as_prompt(row["question"], row["context"])[0]["content"]
