"""Select validation rows, which ask about trained facts in other words: no model learns from them, but they choose the epoch.

Rows that ask nearly the same stay together, since a paraphrase among the training rows would turn validation into a test of
wording. A row on a document's fact is for validation only if a training row teaches the same fact: the held-out questions also
ask about taught facts, and facts that no row teaches would make harmless epochs look harmful (`benchmarks/README.md`, choosing
the epoch).
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

from lab_pipeline.core.rows import CuratedRow, is_document_instruction
from lab_pipeline.core.storage import digest
from lab_pipeline.taxonomy.reviews import asked_of
from lab_pipeline.text.leaks import LeakDetector

ENOUGH_ROWS = 10
"""A leaf with fewer rows has no validation rows."""


def validation_ids(rows: Sequence[CuratedRow], seed_prompts: Sequence[str], share: float, random_seed: int) -> set[str]:
    """Return the ids of one leaf's validation rows: whole groups of rows that ask nearly the same, never more than `share` of
    the rows; an empty set if the leaf has fewer than `ENOUGH_ROWS` rows.

    Groups are tried in an order by hash. A group is for training if it has a document instruction, asks nearly the same
    as a seed in use, or has the last training rows on some fact.

    Args:
        rows: curated rows; of their columns, `id`, `kind`, `context`, `question` and `support` are read.
        seed_prompts: prompts of the leaf's seeds in use.
    """
    if len(rows) < ENOUGH_ROWS:
        return set()
    seeds = LeakDetector(seed_prompts)
    teaching = Counter(_fact(row) for row in rows)
    chosen: set[str] = set()
    for group in sorted(_groups(rows), key=lambda group: digest([random_seed, "validation", min(row["id"] for row in group)])):
        facts = Counter(_fact(row) for row in group if _fact(row))
        if (
            len(chosen) + len(group) <= share * len(rows)
            and all(teaching[fact] > count for fact, count in facts.items())
            and not any(is_document_instruction(row) or seeds.leak(asked_of(row)) for row in group)
        ):
            chosen |= {row["id"] for row in group}
            teaching -= facts
    return chosen


def _fact(row: CuratedRow) -> str | None:
    """Return the text of the document that the row asks about, as its fact; None if the row has a context, or no document."""
    return None if row["context"] else row["support"]


def _groups(rows: Sequence[CuratedRow]) -> list[list[CuratedRow]]:
    """Group rows that share a context or ask nearly the same question, directly or through other rows (union-find)."""
    parent = list(range(len(rows)))
    known = LeakDetector()
    first_row: dict[str, int] = {}

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    for index, row in enumerate(rows):
        text = row["context"] or row["question"]  # rows on one context belong together whatever they ask
        for similar in [text] if text in first_row else known.leaks(text):
            parent[root(first_row[similar])] = root(index)
        if text not in first_row:
            first_row[text] = index
            known.add(text)
    groups = defaultdict(list)
    for index, row in enumerate(rows):
        groups[root(index)].append(row)
    return list(groups.values())
