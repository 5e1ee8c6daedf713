"""Store and load the training data of both phases."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lab_pipeline.core.errors import NotMaterialized
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import EXCLUDED_SCHEMA, TRAINING_SCHEMA, ExcludedRow, TrainingRow
from lab_pipeline.core.storage import digest, read_json, read_rows, write_json, write_rows, written_whole
from lab_pipeline.datasets.rows import conversations

Phase = Literal["knowledge", "skills"]

_BATCH_ROWS = 50_000
"""Approximate number of rows that are put in order and written together."""


@dataclass(frozen=True)
class Dataset:
    """The training data of one phase: a Parquet file named by the hash of its rows, which `PHASE.json` describes."""

    phase: Phase
    made_from: str
    """Fingerprint of its sources: leaves, held-out questions, custom data sets (`staleness.source_fingerprint`)."""
    mixed_by: str
    """Fingerprint of the way they were mixed: general questions, shares, seed (`staleness.mixing_fingerprint`)."""
    digest: str
    path: Path
    rows: int
    """Number of rows to train on. Like `by_source` and `by_leaf`, it does not count rows to validate on."""
    by_source: dict[str, int]
    by_leaf: dict[str, int]
    validation: dict[str, int]
    """Number of rows to validate on, by leaf; those of no leaf as `general`."""
    excluded: dict[str, int]
    """Number of excluded rows, by rule."""

    def read(self) -> list[TrainingRow]:
        """Read all rows, those to validate on included."""
        return read_rows(self.path)

    def head(self, count: int = 5) -> list[TrainingRow]:
        """Read the first `count` rows, or all if there are fewer."""
        return next(pq.ParquetFile(self.path).iter_batches(count), TRAINING_SCHEMA.empty_table()).to_pylist()


def load_dataset(home: Home, phase: Phase) -> Dataset:
    """Load the phase's current data set.

    Raises:
        NotMaterialized: it was not materialized yet, or only by a release that did not record how data sets were mixed.
    """
    pointer = home.datasets / f"{phase}.json"
    described = read_json(pointer) if pointer.exists() else {}
    if "mixed_by" not in described:
        raise NotMaterialized(f"no {phase} data yet; materialize {phase}_dataset first")
    return Dataset(**{**described, "path": home.datasets / described["path"]})


def excluded_rows(home: Home) -> list[tuple[str, ExcludedRow]]:
    """Read the rows that were excluded from the current data sets, if there are any, each as (name of its data set, row).

    Raises:
        NotMaterialized: a data set is of a release that did not record how data sets were mixed.
    """
    found = []
    for phase in get_args(Phase):
        if (home.datasets / f"{phase}.json").exists():
            path = load_dataset(home, phase).path
            found += [(f"{phase} data set", row) for row in read_rows(path.with_stem(f"{path.stem}-excluded"))]
    return found


def store_dataset(
    home: Home,
    phase: Phase,
    tables: list[pa.Table],
    excluded: Sequence[ExcludedRow],
    made_from: str,
    mixed_by: str,
    seed: int,
) -> Dataset:
    """Shuffle rows, write them and, in a file beside them, the excluded rows, and make them the phase's current data set.

    Earlier data sets stay stored. The order depends on the rows' ids and the seed alone, so equal rows give equal bytes,
    whatever order they come in. `made_from` and `mixed_by` are the fingerprints to record (see `Dataset`).
    """
    ranks, row_digests = [], []
    by_source, by_leaf, validation = Counter[str](), Counter[str](), Counter[str]()
    for table in tables:
        ids, *columns = (table[name].to_pylist() for name in ("id", "unmask", "source", "leaf", "part"))
        ranks.append(_ranks(ids, seed))
        for row_id, turns, unmask, source, leaf, split in zip(ids, conversations(table), *columns, strict=True):
            row_digests.append(digest([row_id, turns, unmask, split]))
            if split == "validation":
                validation[leaf or "general"] += 1
            else:
                by_source[source] += 1
                by_leaf[leaf] += bool(leaf)
    order = np.argsort(np.concatenate(ranks), kind="stable")
    content = digest([row_digests[row] for row in order.tolist()])
    path = home.datasets / f"{phase}-{content}.parquet"
    with written_whole(path) as scratch, pq.ParquetWriter(scratch, TRAINING_SCHEMA) as writer:
        for rows in _shuffled(tables, ranks):
            writer.write_table(rows)
    write_rows(home.datasets / f"{phase}-{content}-excluded.parquet", excluded, EXCLUDED_SCHEMA)
    dataset = Dataset(
        phase=phase,
        made_from=made_from,
        mixed_by=mixed_by,
        digest=content,
        path=path,
        rows=by_source.total(),
        by_source=dict(sorted(by_source.items())),
        by_leaf=dict(sorted((+by_leaf).items())),
        validation=dict(sorted(validation.items())),
        excluded=dict(Counter(row["rule"] for row in excluded)),
    )
    write_json(home.datasets / f"{phase}.json", {**vars(dataset), "path": path.name})
    return dataset


def _ranks(ids: list[str], seed: int) -> np.ndarray:
    """Return a 64-bit number for each row, which depends on its id and the seed: sorted by these, the rows are shuffled.

    The numbers are evenly spread, since the ids are hashes.
    """
    mask, odd = int(digest([seed, "order"])[:16], 16), 0x9E3779B97F4A7C15  # Fibonacci hashing: Knuth, TAOCP 3, section 6.4
    return (np.array([int(row[:16], 16) for row in ids], np.uint64) ^ np.uint64(mask)) * np.uint64(odd)


def _shuffled(tables: list[pa.Table], ranks: list[np.ndarray]) -> Iterator[pa.Table]:
    """Yield the rows of all tables in the order of their ranks (one array for each table), about `_BATCH_ROWS` at a time."""
    batches = np.uint64(sum(map(len, tables)) // _BATCH_ROWS + 1)
    batch_of = [(rank >> np.uint64(32)) * batches >> np.uint64(32) for rank in ranks]
    for batch in range(int(batches)):
        chosen = [table.filter(pa.array(numbers == batch)) for table, numbers in zip(tables, batch_of, strict=True)]
        rank = np.concatenate([rank[numbers == batch] for rank, numbers in zip(ranks, batch_of, strict=True)])
        yield pa.concat_tables(chosen).combine_chunks().take(np.argsort(rank, kind="stable"))
