"""Which rows a data set takes: what the checks on data sets would stop a run for is left out here, row by row.

Left out are rows with chat markup, rows that repeat a question of the test, and rows that repeat one of another leaf: the same
question, or nearly the same conversation.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lab_pipeline.core.rows import EXCLUDED_SCHEMA, TRAINING_SCHEMA
from lab_pipeline.text.leaks import LeakDetector
from lab_pipeline.text.near_duplicates import near_duplicates
from lab_pipeline.text.words import normalised

_MARKUP = re.compile(r"<\|[^|>]{1,40}\|>")
"""Special tokens of chat templates: as text in a row they would end or begin turns."""

_BATCH = 50_000
"""Rows held as one table."""


Fault = tuple[str, str, str | None, float | None]
"""Rule, reason, id of the row that is repeated, similarity."""


def exclusion(
    origin: str,
    leaf: str | None,
    question: str,
    rule: str,
    reason: str,
    repeats: str | None = None,
    similarity: float | None = None,
) -> dict[str, Any]:
    """A row of `EXCLUDED_SCHEMA`."""
    return dict(zip(EXCLUDED_SCHEMA.names, (origin, leaf, question, rule, reason, repeats, similarity), strict=True))


def screen(tables: Iterable[pa.Table], test: LeakDetector) -> tuple[list[pa.Table], list[dict[str, Any]]]:
    """(admitted rows, excluded rows), under `TRAINING_SCHEMA` and `EXCLUDED_SCHEMA`.

    The order of the rows is their precedence: of two that repeat each other, the earlier one stays. Seeds of one leaf may ask
    the same and be answered in several ways.
    """
    seeds: dict[int, str] = {}
    """Leaf of each admitted seed, by the row's place."""
    batches: list[pa.Table] = []
    excluded: list[dict[str, Any]] = []
    asked: list[int] = []
    for batch in _batched(tables):
        faults: dict[int, Fault] = {}
        texts, rows = _asked_texts(batch)
        leaks = {int(rows[place]): leak for place, leak in test.leaks_among(texts).items()}
        origins = zip(batch["source"].to_pylist(), batch["leaf"].to_pylist(), strict=True)
        for index, (turns, (source, leaf)) in enumerate(zip(turns_of(batch), origins, strict=True)):
            fault = _fault(turns, leaks.get(index))
            if fault:
                faults[index] = (*fault, None, None)
                continue
            if source == "seed":
                seeds[len(asked)] = leaf
            asked.append(hash((source, index, len(batches))) if source == "document" else hash(_asked(turns)))
        excluded += _excluded(batch, faults)
        batches.append(_without(batch, faults))
    same = {
        row: (of, near)
        for row, (of, near) in _same_questions(np.array(asked, np.int64)).items()
        if row not in seeds or seeds[row] != seeds.get(of)
    }
    excluded += _take_out(batches, same, "duplicate", "same question as a row of")
    near = {repeat.row: (repeat.of, repeat.similarity) for repeat in near_duplicates(batches)}
    return batches, excluded + _take_out(batches, near, "near_duplicate", "nearly the same as a row of")


def _batched(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of one chunk and a good size."""
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(map(len, held)) >= _BATCH:
            yield pa.concat_tables(held).combine_chunks()
            held = []
    yield pa.concat_tables([TRAINING_SCHEMA.empty_table(), *held]).combine_chunks()


def asked_in(rows: pa.Table) -> pa.Array:
    """What the rows ask; documents ask nothing."""
    return _asked_texts(rows)[0]


def _asked_texts(rows: pa.Table) -> tuple[pa.Array, np.ndarray]:
    """What is asked, and by which row."""
    messages = rows["messages"].combine_chunks()
    turns, row = messages.flatten(), pc.list_parent_indices(messages)
    asking = pc.not_equal(rows["source"].combine_chunks(), "document").take(row)
    asked = pc.and_(asking, pc.equal(turns.field("role"), "user"))
    return turns.field("content").filter(asked), row.filter(asked).to_numpy()


def turns_of(rows: pa.Table) -> Iterator[list[tuple[str, str]]]:
    """(role, content) of each row's messages."""
    for messages in rows["messages"].chunks:
        turns = messages.flatten()
        said = list(zip(turns.field("role").to_pylist(), turns.field("content").to_pylist(), strict=True))
        bounds = messages.offsets.to_numpy() - messages.offsets[0].as_py()
        for start, end in pairwise(bounds.tolist()):
            yield said[start:end]


def _fault(turns: list[tuple[str, str]], leak: str | None) -> tuple[str, str] | None:
    """(rule, reason) that keeps a row out by itself, if any does."""
    for _, text in turns:
        if marked := _MARKUP.search(text):
            return "markup", f"holds the chat markup {marked.group()!r}"
    return ("held_out", f"repeats the test question {leak!r}") if leak else None


def _asked(turns: list[tuple[str, str]]) -> str:
    return normalised("\n".join(text for role, text in turns[:-1] if role != "system"))


def _same_questions(asked: np.ndarray) -> dict[int, tuple[int, None]]:
    """Rows that ask what an earlier one asks, each with the first that does."""
    order = np.argsort(asked, kind="stable")
    new = np.diff(asked[order], prepend=~asked[order[:1]]) != 0
    first = order[np.flatnonzero(new)[np.cumsum(new) - 1]]
    return {row: (of, None) for row, of in zip(order[~new].tolist(), first[~new].tolist(), strict=True)}


def _take_out(
    batches: list[pa.Table], repeats: Mapping[int, tuple[int, float | None]], rule: str, relation: str
) -> list[dict[str, Any]]:
    """Take the rows that repeat others out of `batches`, and return them as `EXCLUDED_SCHEMA` has it."""
    rows = sorted(repeats)
    names = pa.concat_tables([batch.select(["source_row", "leaf"]) for batch in batches])
    stayed = dict(zip(rows, names.take(pa.array([repeats[row][0] for row in rows], pa.int64())).to_pylist(), strict=True))
    excluded, start = [], 0
    for number, batch in enumerate(batches):
        faults: dict[int, Fault] = {}
        for row in rows[bisect_left(rows, start) : bisect_left(rows, start + len(batch))]:
            of = stayed[row]["leaf"] or "a data set of your own"
            faults[row - start] = (rule, f"{relation} {of}", stayed[row]["source_row"], repeats[row][1])
        excluded += _excluded(batch, faults)
        batches[number] = _without(batch, faults)
        start += len(batch)
    return excluded


def _excluded(batch: pa.Table, faults: Mapping[int, Fault]) -> list[dict[str, Any]]:
    gone = batch.take(pa.array(list(faults), pa.int64()))
    names = zip(gone["source_row"].to_pylist(), gone["leaf"].to_pylist(), turns_of(gone), faults.values(), strict=True)
    return [exclusion(origin, leaf, turns[-2][1], *fault) for origin, leaf, turns, fault in names]


def _without(batch: pa.Table, faults: Mapping[int, Fault]) -> pa.Table:
    stays = np.ones(len(batch), bool)
    stays[list(faults)] = False
    return batch if stays.all() else batch.filter(pa.array(stays))
