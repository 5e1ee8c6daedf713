"""Which of a leaf's rows are kept from training to choose the epoch by.

They ask for what is taught, in words that are not: rows that ask nearly the same stay together, for a paraphrase among the
training rows would make of validation a test of wording; and a fact of a document that no other row teaches is for training,
for the held-out questions ask about facts that are taught as well. (Facts that no row teaches make epochs look harmful that
are not: `benchmarks/README.md`, choosing the epoch.)
"""

from __future__ import annotations

from collections import Counter, defaultdict

from lab_pipeline.core.rows import CuratedRow, as_prompt, is_document_instruction
from lab_pipeline.core.storage import digest
from lab_pipeline.text.leaks import LeakDetector

ENOUGH_ROWS = 10
"""A leaf with fewer rows spares none for validation."""


def validation_rows(rows: list[CuratedRow], seeds: list[str], share: float, random_seed: int) -> set[str]:
    """Ids of the curated rows of one leaf that validate: whole groups, chosen by hash, never more than `share` of the rows.

    Args:
        rows: with `id`, `kind`, `context`, `question` and `support`.
        seeds: what the leaf's seeds in use ask; a group that asks nearly the same is for training, as they are.
    """
    if len(rows) < ENOUGH_ROWS:
        return set()
    taught = LeakDetector(seeds)
    teaching = Counter(_fact(row) for row in rows)
    chosen: set[str] = set()
    for group in sorted(_groups(rows), key=lambda group: digest([random_seed, "validation", min(row["id"] for row in group)])):
        facts = Counter(_fact(row) for row in group if _fact(row))
        if (
            len(chosen) + len(group) <= share * len(rows)
            and all(teaching[fact] > asking for fact, asking in facts.items())
            and not any(is_document_instruction(row) or taught.leak(_asked(row)) for row in group)
        ):
            chosen |= {row["id"] for row in group}
            teaching -= facts
    return chosen


def _fact(row: CuratedRow) -> str | None:
    """The part of a document that the row asks about; None of one that brings its context along, or has no document."""
    return None if row["context"] else row["support"]


def _groups(rows: list[CuratedRow]) -> list[list[CuratedRow]]:
    """Rows joined by nearly the same question, or the same context, directly or through others."""
    leader = list(range(len(rows)))
    known = LeakDetector()
    first: dict[str, int] = {}

    def lead(index: int) -> int:
        while leader[index] != index:
            leader[index] = index = leader[leader[index]]
        return index

    for index, row in enumerate(rows):
        asked = row["context"] or row["question"]  # a context outweighs what is asked about it
        for text in [asked] if asked in first else known.leaks(asked):
            leader[lead(first[text])] = lead(index)
        if asked not in first:
            first[asked] = index
            known.add(asked)
    groups = defaultdict(list)
    for index, row in enumerate(rows):
        groups[lead(index)].append(row)
    return list(groups.values())


def _asked(row: CuratedRow) -> str:
    return as_prompt(row["question"], row["context"])[0]["content"]
