"""Exclude the rows for which the checks on data sets would stop a run.

These are rows with chat markup, rows that repeat a held-out question, rows with the same prompt as an earlier row, and rows
with nearly the same conversation as an earlier row of another leaf.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, cast

import numpy as np
import pyarrow as pa

from lab_pipeline.core.rows import TRAINING_SCHEMA, ExcludedRow
from lab_pipeline.datasets.rows import conversations, user_texts
from lab_pipeline.text.leaks import LeakDetector
from lab_pipeline.text.near_duplicates import near_duplicates
from lab_pipeline.text.words import normalised

_MARKUP = re.compile(r"<\|[^|>]{1,40}\|>")
"""What looks like a special token of a chat template: as text in a row, such a token would end or begin a turn."""

_BATCH_ROWS = 50_000


class Exclusion(NamedTuple):
    """Why a row is excluded; `ExcludedRow` describes the fields."""

    rule: str
    reason: str
    repeats: str | None = None
    similarity: float | None = None


def excluded_row(source_row: str, leaf: str | None, question: str, exclusion: Exclusion) -> ExcludedRow:
    """Build the record of an excluded row; its `source_row` becomes the record's id."""
    return cast(ExcludedRow, {"id": source_row, "leaf": leaf, "question": question, **exclusion._asdict()})


def exclude_rows(tables: Iterable[pa.Table], heldout: LeakDetector) -> tuple[list[pa.Table], list[ExcludedRow]]:
    """Split rows into those to keep, as tables under `TRAINING_SCHEMA`, and records of those excluded.

    The order of the rows is their precedence: of two rows that repeat each other, the earlier one stays. Two kinds of rows may
    share a prompt: seeds of one leaf, which may answer a question in several ways, and rows of the source `document`.
    """
    seed_leaves: dict[int, str] = {}
    """Leaf of each kept seed, by the row's index in `prompts`."""
    batches: list[pa.Table] = []
    excluded: list[ExcludedRow] = []
    prompts: list[int] = []
    """Hash of each kept row's prompt."""
    for batch in _batched(tables):
        exclusions: dict[int, Exclusion] = {}
        texts, rows = user_texts(batch)
        leaks = {int(rows[index]): leak for index, leak in heldout.leaks_among(texts).items()}
        origins = zip(batch["source"].to_pylist(), batch["leaf"].to_pylist(), strict=True)
        for index, (turns, (source, leaf)) in enumerate(zip(conversations(batch), origins, strict=True)):
            if exclusion := _exclusion(turns, leaks.get(index)):
                exclusions[index] = exclusion
                continue
            if source == "seed":
                seed_leaves[len(prompts)] = leaf
            if source == "document":  # passages under one heading have the same prompt, yet none repeats another
                prompts.append(hash((source, index, len(batches))))
            else:
                prompts.append(hash(normalised("\n".join(text for role, text in turns[:-1] if role != "system"))))
        excluded += _excluded(batch, exclusions)
        batches.append(_without(batch, exclusions))
    same = {
        row: (of, similarity)
        for row, (of, similarity) in _same_prompts(np.array(prompts, np.int64)).items()
        if row not in seed_leaves or seed_leaves[row] != seed_leaves.get(of)
    }
    excluded += _exclude_repeats(batches, same, "duplicate", "same question as a row of")
    similar = {repeat.row: (repeat.of, repeat.similarity) for repeat in near_duplicates(batches)}
    return batches, excluded + _exclude_repeats(batches, similar, "near_duplicate", "nearly the same as a row of")


def _batched(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the same rows, in the same order, in larger tables of one chunk each; the last one may be small or empty."""
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(map(len, held)) >= _BATCH_ROWS:
            yield pa.concat_tables(held).combine_chunks()
            held = []
    yield pa.concat_tables([TRAINING_SCHEMA.empty_table(), *held]).combine_chunks()


def _exclusion(turns: list[tuple[str, str]], leak: str | None) -> Exclusion | None:
    """Return why a row must be excluded by itself: chat markup, or `leak`, the held-out question that it repeats; else None."""
    for _, text in turns:
        if markup := _MARKUP.search(text):
            return Exclusion("markup", f"holds the chat markup {markup.group()!r}")
    return Exclusion("held_out", f"repeats the test question {leak!r}") if leak else None


def _same_prompts(prompts: np.ndarray) -> dict[int, tuple[int, None]]:
    """Map each row whose prompt equals an earlier row's to the first row with this prompt; rows are given by index.

    The None beside it says that no similarity was measured.
    """
    order = np.argsort(prompts, kind="stable")
    new = np.diff(prompts[order], prepend=~prompts[order[:1]]) != 0
    first = order[np.flatnonzero(new)[np.cumsum(new) - 1]]
    return {row: (of, None) for row, of in zip(order[~new].tolist(), first[~new].tolist(), strict=True)}


def _exclude_repeats(
    batches: list[pa.Table], repeats: Mapping[int, tuple[int, float | None]], rule: str, relation: str
) -> list[ExcludedRow]:
    """Remove rows that repeat other rows from `batches`, in place, and return records of the rows removed.

    Args:
        repeats: maps a row's index, over all batches, to the index of the row that it repeats and their similarity.
        rule: the rule to record.
        relation: the beginning of the reason to record, which the other row's leaf completes.
    """
    rows = sorted(repeats)
    names = pa.concat_tables([batch.select(["source_row", "leaf"]) for batch in batches])
    repeated = dict(zip(rows, names.take(pa.array([repeats[row][0] for row in rows], pa.int64())).to_pylist(), strict=True))
    excluded, start = [], 0
    for number, batch in enumerate(batches):
        exclusions: dict[int, Exclusion] = {}
        for row in rows[bisect_left(rows, start) : bisect_left(rows, start + len(batch))]:
            other = repeated[row]
            reason = f"{relation} {other['leaf'] or 'a custom data set'}"
            exclusions[row - start] = Exclusion(rule, reason, other["source_row"], repeats[row][1])
        excluded += _excluded(batch, exclusions)
        batches[number] = _without(batch, exclusions)
        start += len(batch)
    return excluded


def _excluded(batch: pa.Table, exclusions: Mapping[int, Exclusion]) -> list[ExcludedRow]:
    rows = batch.take(pa.array(list(exclusions), pa.int64()))
    found = zip(rows.select(["source_row", "leaf"]).to_pylist(), conversations(rows), exclusions.values(), strict=True)
    return [excluded_row(row["source_row"], row["leaf"], turns[-2][1], exclusion) for row, turns, exclusion in found]


def _without(batch: pa.Table, exclusions: Mapping[int, Exclusion]) -> pa.Table:
    kept = np.ones(len(batch), bool)
    kept[list(exclusions)] = False
    return batch if kept.all() else batch.filter(pa.array(kept))
