"""Search the kept and rejected rows of all leaves in their Parquet files, a part of a file at a time."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow import fs

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import REJECTED_SCHEMA, CuratedRow
from lab_pipeline.curation.curate import BANNED
from lab_pipeline.datasets.dataset import excluded_rows
from lab_pipeline.instructions.plan import LeafState, leaf_state, read_state

_LEFT_OUT = "left out"
_STAGES = {BANNED: "review", "no_reply": "generated", "incomplete": "generated"}
"""The stages of the rules that stand in no flow; all other rules reject at `curated`, and judges at `judged`."""
_JUDGE = "judge "
_TEXTS = ("question", "answer", "context")
_BATCH_ROWS = 1 << 15
"""Rows that are searched at once: a few MiB of text for each processor."""
_PAGE_BATCH_ROWS = 1 << 10
_FOOTERS_KEPT = 4096
"""Number of Parquet footers, about 45 KB each, that are kept for the next search: a file is then opened in half the time."""
_DISK = fs.LocalFileSystem()
_FORMAT = ds.ParquetFileFormat(default_fragment_scan_options=ds.ParquetFragmentScanOptions(pre_buffer=False))
"""Reading ahead within a file takes a third more time on a local disk."""

Numbers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Query:
    """Which rows to find: those that meet all conditions given."""

    leaf: str = ""
    """Key of a leaf, or of a branch for all leaves below it."""
    status: str = ""
    """'kept'; 'left out', for kept rows that a data set left out; or 'rejected'."""
    stage: str = ""
    """Stage at which rows were rejected, or the data set that left them out."""
    rule: str = ""
    judge: str = ""
    """Judge whose score counts; without it, any judge's."""
    least: float | None = None
    most: float | None = None
    """Bounds of a score; rows without such a score are not found."""
    text: str = ""
    """Must occur in question, answer or context as it stands, but for case."""
    id: str = ""
    """Beginning of the row's id."""


class FoundRow(TypedDict):
    """A row as it was curated, with its fate."""

    row: CuratedRow
    stage: str
    """'' if the row is kept, and no data set left it out."""
    rule: str
    reason: str


@dataclass(frozen=True)
class Found:
    """How many rows a query finds, and those on one page, leaf by leaf, the kept before the rejected."""

    total: int
    rows: list[FoundRow]


@dataclass(frozen=True)
class LeftOut:
    """The kept rows that the current data sets left out: data set, rule and reason, by id."""

    fates: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)

    def ids(self, query: Query) -> pa.Array:
        fates = self.fates.items()
        return pa.array([row for row, (stage, rule, _) in fates if _fits(query, stage, rule)], pa.string())


class _Table(NamedTuple):
    path: Path
    rows: int


@dataclass(frozen=True)
class Matches:
    """The rows that a query finds, leaf by leaf, the kept before the rejected; they are read when they are asked for."""

    tables: Sequence[_Table]
    numbers: Sequence[Numbers | range]
    """Numbers of the rows found, by table."""
    left_out: LeftOut

    @property
    def total(self) -> int:
        return sum(map(len, self.numbers))

    def read(self, places: Sequence[int]) -> list[FoundRow]:
        """Read the rows at some places, in ascending order, among all that were found."""
        rows, before, wanted = [], 0, np.asarray(places, np.int64)
        for table, numbers in zip(self.tables, self.numbers, strict=True):
            here = wanted[(wanted >= before) & (wanted < before + len(numbers))] - before
            if len(here):
                rows += [_fate(row, self.left_out) for row in _read(table.path, np.asarray(numbers)[here])]
            before += len(numbers)
        return rows


def refreshed_leaves(home: Home) -> list[LeafState]:
    """Return the last good refresh of every leaf that ever had one, by key."""
    states = [read_state(path) for path in home.root.glob("leaves/*/state.json")]
    return sorted(states, key=lambda state: state.leaf)


def match_rows(home: Home, states: Iterable[LeafState], query: Query) -> Matches:
    """Find the rows of refreshed leaves that meet a query; of their files, only the columns that it asks about are read."""
    left_out = LeftOut({row["id"]: (stage, row["rule"], row["reason"]) for stage, row in excluded_rows(home)})
    tables = list(_tables(home, states, query))
    condition = _condition(query, left_out)
    if condition is None and not _asks_score(query):
        found: Sequence[Numbers | range] = [range(table.rows) for table in tables]
    else:
        found = _search(tables, query, condition)
    return Matches(tables, found, left_out)


def find_rows(home: Home, states: Iterable[LeafState], query: Query, offset: int = 0, count: int = 50) -> Found:
    """Count the rows of refreshed leaves that a query finds, and read `count` of them from number `offset` on."""
    found = match_rows(home, states, query)
    return Found(found.total, found.read(range(offset, max(offset, min(offset + count, found.total)))))


def find_row(home: Home, leaf: str, row_id: str) -> FoundRow:
    """Find one row of a leaf by its id.

    Raises:
        LabError: The leaf has no such row in its last good tables.
    """
    state = leaf_state(home, leaf)
    found = find_rows(home, [state], Query(id=row_id), count=1).rows if state else []
    if not found:
        raise LabError(f"{leaf} has no row {row_id} now; a new refresh may have replaced its rows")
    return found[0]


def _tables(home: Home, states: Iterable[LeafState], query: Query) -> Iterator[_Table]:
    for state in states:
        if not query.leaf or f"{state.leaf}/".startswith(f"{query.leaf.rstrip('/')}/"):
            folder, kept = home.leaf(state.leaf), state.funnel["kept"]
            if query.status in ("", "kept", _LEFT_OUT):
                yield _Table(folder / f"curated-{state.curated}.parquet", kept)
            if query.status in ("", "rejected"):
                yield _Table(folder / f"rejected-{state.curated}.parquet", state.funnel["generated"] - kept)


def _fits(query: Query, stage: str, rule: str) -> bool:
    return query.stage in ("", stage) and query.rule in ("", rule)


def _search(tables: Sequence[_Table], query: Query, condition: ds.Expression | None) -> list[Numbers]:
    """Return the numbers of the rows that a query finds in each table.

    Arrow reads the files and tests the condition, a batch of rows at a time, in threads of its own.
    """
    columns = {"found": ds.scalar(True) if condition is None else condition}
    if _asks_score(query):
        columns["scores"] = ds.field("scores")
    fragments = [_fragment(table.path, table.path.stat().st_mtime_ns) for table in tables]
    place = {str(table.path): number for number, table in enumerate(tables)}
    found: list[list[Numbers]] = [[] for _ in tables]
    before = [0] * len(tables)
    dataset = ds.FileSystemDataset(fragments, REJECTED_SCHEMA, _FORMAT, _DISK)
    for part in dataset.scanner(columns, batch_size=_BATCH_ROWS).scan_batches():
        table, batch = place[part.fragment.path], part.record_batch
        mask = pc.fill_null(batch["found"], False)
        if "scores" in columns:
            mask = pc.and_(mask, _of_score(batch["scores"], query))
        found[table].append(np.flatnonzero(mask.to_numpy(zero_copy_only=False)) + before[table])
        before[table] += len(batch)
    return [np.concatenate([np.array([], np.int64), *numbers]) for numbers in found]


@lru_cache(_FOOTERS_KEPT)
def _fragment(table: Path, changed: int) -> ds.Fragment:
    """Return a table's file, whose footer is read once; `changed`, its time of writing, is only a part of the cache's key."""
    return _FORMAT.make_fragment(str(table), _DISK)


def _asks_score(query: Query) -> bool:
    return bool(query.judge) or query.least is not None or query.most is not None


def _condition(query: Query, left_out: LeftOut) -> ds.Expression | None:
    """Return what rows must meet, but for scores; None if they need not meet anything."""
    conditions = []
    if query.id:
        conditions.append(pc.starts_with(ds.field("id"), query.id))
    if query.stage or query.rule or query.status == _LEFT_OUT:
        conditions.append(ds.field("id").isin(left_out.ids(query)) | _of_fate(query))
    if query.text:
        texts = (pc.utf8_lower(ds.field(name)) for name in _TEXTS)
        conditions.append(reduce(operator.or_, (pc.match_substring(text, query.text.lower()) for text in texts)))
    return reduce(operator.and_, conditions) if conditions else None


def _of_fate(query: Query) -> ds.Expression:
    """Tell of rejected rows whether rule and stage are those of the query; of kept rows, which have no rule, it says null."""
    rule = ds.field("rule")
    wanted = rule == query.rule if query.rule else rule.is_valid()
    if not query.stage:
        return wanted
    judged = pc.starts_with(rule, _JUDGE)
    of_stage = {stage: rule.isin([each for each, of in _STAGES.items() if of == stage]) for stage in _STAGES.values()}
    of_stage |= {"judged": judged, "curated": ~(judged | rule.isin(list(_STAGES)))}
    return wanted & of_stage.get(query.stage, ds.scalar(False))


def _of_score(scores: pa.ListArray, query: Query) -> pa.Array:
    flat, rows = scores.flatten(), pc.list_parent_indices(scores)
    good = pc.is_valid(flat.field("score"))
    if query.judge:
        good = pc.and_(good, pc.equal(flat.field("judge"), query.judge))
    if query.least is not None:
        good = pc.and_(good, pc.greater_equal(flat.field("score"), query.least))
    if query.most is not None:
        good = pc.and_(good, pc.less_equal(flat.field("score"), query.most))
    mask = np.zeros(len(scores), bool)
    mask[rows.filter(pc.fill_null(good, False)).to_numpy()] = True
    return pa.array(mask)


def _read(table: Path, numbers: Sequence[int] | Numbers) -> list[Any]:
    """Read some rows of a file, given by their ascending numbers, without what stands behind them."""
    rows, before, wanted = [], 0, np.asarray(numbers)
    with pq.ParquetFile(table, pre_buffer=False) as file:
        for batch in file.iter_batches(_PAGE_BATCH_ROWS):
            inside = wanted[(wanted >= before) & (wanted < before + len(batch))] - before
            rows += batch.take(pa.array(inside)).to_pylist()
            before += len(batch)
            if before > wanted[-1]:
                break
    return rows


def stage_of(rule: str) -> str:
    """Return the stage of the funnel at which a rule or a judge (`judge NAME`) rejects rows."""
    return _STAGES.get(rule, "judged" if rule.startswith(_JUDGE) else "curated")


def _fate(row: Any, left_out: LeftOut) -> FoundRow:
    if "rule" in row:
        return {"row": row, "stage": stage_of(row["rule"]), "rule": row["rule"], "reason": row["reason"]}
    stage, rule, reason = left_out.fates.get(row["id"], ("", "", ""))
    return {"row": row, "stage": stage, "rule": rule, "reason": reason}
