"""Search the kept and rejected rows of all leaves in their Parquet files, a part of a file at a time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import CuratedRow
from lab_pipeline.curation.reviewed import BANNED
from lab_pipeline.datasets.dataset import excluded_rows
from lab_pipeline.instructions.plan import LeafState, leaf_state, read_state

_LEFT_OUT = "left out"
_TEXTS = ("question", "answer", "context")
_BATCH_ROWS = 1 << 15
"""Rows that are searched at once: a few MiB of text for each processor."""
_PAGE_BATCH_ROWS = 1 << 10
_FOOTERS_KEPT = 4096
"""Number of Parquet footers, about 45 KB each, that are kept for the next search: a file is then opened in half the time."""

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
    columns, processors = _columns(query), os.cpu_count() or 1
    if columns:
        with ThreadPoolExecutor(processors) as threads:  # Arrow works outside the interpreter's lock
            search = _Search(query, columns, left_out, use_threads=len(tables) < processors)
            found: list[Numbers | range] = list(threads.map(lambda table: search.matches(table.path), tables))
    else:
        found = [range(table.rows) for table in tables]
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


@dataclass(frozen=True)
class _Search:
    """Searches one file after another."""

    query: Query
    columns: set[str]
    left_out: LeftOut
    use_threads: bool
    """Whether a file's columns are read side by side, which costs more than it brings where files are."""

    def matches(self, table: Path) -> Numbers:
        """Return the numbers of the rows of a file that the query finds."""
        found, before = [np.array([], np.int64)], 0
        with _opened(table) as file:
            names = set(file.schema_arrow.names)
            columns = sorted(column for column in self.columns if column.partition(".")[0] in names)
            for batch in file.iter_batches(_BATCH_ROWS, columns=columns, use_threads=self.use_threads):
                found.append(np.flatnonzero(_mask(batch, self.query, self.left_out)) + before)
                before += len(batch)
        return np.concatenate(found)


def _opened(table: Path) -> pq.ParquetFile:
    return pq.ParquetFile(table, pre_buffer=False, metadata=_footer(table, table.stat().st_mtime_ns))


@lru_cache(_FOOTERS_KEPT)
def _footer(table: Path, changed: int) -> pq.FileMetaData:
    """Read a file's footer; `changed`, when the file was last written, is only a part of the cache's key."""
    return pq.read_metadata(table)


def _columns(query: Query) -> set[str]:
    """Return the paths of the columns that a query asks about, by the names that Parquet gives to a list's parts."""
    needed: set[str] = set(_TEXTS) if query.text else set()
    if query.stage or query.rule or query.status == _LEFT_OUT:
        needed |= {"rule", "id"}
    if _asks_score(query):
        needed.add("scores.list.element.score")
    if query.judge:
        needed.add("scores.list.element.judge")
    return needed | ({"id"} if query.id else set())


def _asks_score(query: Query) -> bool:
    return bool(query.judge) or query.least is not None or query.most is not None


def _mask(batch: pa.RecordBatch, query: Query, left_out: LeftOut) -> np.ndarray[Any, np.dtype[np.bool_]]:
    masks = []
    if query.id:
        masks.append(pc.starts_with(batch["id"], query.id))
    if query.stage or query.rule or query.status == _LEFT_OUT:
        masks.append(_of_fate(batch, query, left_out))
    if _asks_score(query):
        masks.append(_of_score(batch["scores"], query))
    if query.text:
        wanted = query.text.lower()
        texts = [batch[name] for name in _TEXTS if batch[name].null_count < len(batch)]
        masks.append(reduce(pc.or_kleene, (pc.match_substring(_lower(text), wanted) for text in texts)))
    return pc.fill_null(reduce(pc.and_kleene, masks), False).to_numpy(zero_copy_only=False)


def _lower(texts: pa.Array) -> pa.Array:
    """Return texts in lower case; Arrow's function for ASCII alone is several times as fast."""
    return pc.ascii_lower(texts) if pc.all(pc.string_is_ascii(texts)).as_py() else pc.utf8_lower(texts)


def _of_fate(batch: pa.RecordBatch, query: Query, left_out: LeftOut) -> pa.Array:
    if "rule" not in batch.schema.names:  # kept rows, of which a data set may have left some out
        return pc.is_in(batch["id"], left_out.ids(query))
    wanted = [rule for rule in batch["rule"].unique().to_pylist() if _fits(query, stage_of(rule), rule)]
    return pc.is_in(batch["rule"], pa.array(wanted, pa.string()))


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
    with _opened(table) as file:
        for batch in file.iter_batches(_PAGE_BATCH_ROWS):
            inside = wanted[(wanted >= before) & (wanted < before + len(batch))] - before
            rows += batch.take(pa.array(inside)).to_pylist()
            before += len(batch)
            if before > wanted[-1]:
                break
    return rows


def stage_of(rule: str) -> str:
    """Return the stage of the funnel at which a rule or a judge (`judge NAME`) rejects rows."""
    stages = {BANNED: "review", "no_reply": "generated", "incomplete": "generated"}
    return stages.get(rule, "judged" if rule.startswith("judge ") else "curated")


def _fate(row: Any, left_out: LeftOut) -> FoundRow:
    if "rule" in row:
        return {"row": row, "stage": stage_of(row["rule"]), "rule": row["rule"], "reason": row["reason"]}
    stage, rule, reason = left_out.fates.get(row["id"], ("", "", ""))
    return {"row": row, "stage": stage, "rule": rule, "reason": reason}
