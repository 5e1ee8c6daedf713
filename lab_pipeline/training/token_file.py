"""Keep encoded rows in an Arrow file that is mapped into memory, so that a million rows need hardly any of it."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lab_pipeline.core.processes import die_with_parent
from lab_pipeline.core.progress import Progress, Say
from lab_pipeline.core.rows import Split
from lab_pipeline.core.storage import digest, file_digest, read_json, write_json, written_whole
from lab_pipeline.models import packing, template
from lab_pipeline.models.loader import load_tokenizer
from lab_pipeline.models.packing import IGNORED, TokenRow, encode, encode_answers, flatten, split_row
from lab_pipeline.training.failure import Interrupted

_SCHEMA = pa.schema([("leaf", pa.string()), ("tokens", pa.list_(pa.int32())), ("learned", pa.list_(pa.bool_()))])
_BATCH_ROWS = 500
_MANY_ROWS = 20_000
"""From so many rows on, it pays to start further processes, which takes seconds."""


@dataclass(frozen=True)
class Counts:
    """What became of a data set's rows when they were encoded."""

    rows: int = 0
    cut: int = 0
    """Number of rows longer than a pack. For training they are cut into pieces; for validation only the beginning is used."""
    unlearnable: int = 0
    """Number of rows without a token that the loss covers, such as those with an empty answer; they are left out."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.rows + other.rows, self.cut + other.cut, self.unlearnable + other.unlearnable)


class TokenFile(Sequence[TokenRow]):
    """The encoded rows of one split of a data set, or their pieces. A row is read from disk when it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts = Counts(**read_json(path.with_suffix(".json")))
        with pa.memory_map(str(path)) as source:
            reader = pa.ipc.open_file(source)
            self._batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        self._starts = np.cumsum([0, *(len(batch) for batch in self._batches)]).tolist()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect_right(self._starts, index) - 1
        _, tokens, learned = (column[index - self._starts[number]] for column in self._batches[number].columns)
        ids, mask = tokens.values.to_numpy(), learned.values.to_numpy(zero_copy_only=False)
        return TokenRow(ids.tolist(), np.where(mask, ids, IGNORED).tolist())

    @property
    def leaves(self) -> list[str | None]:
        """The leaf of each row; None for a general question."""
        return [leaf for batch in self._batches for leaf in batch["leaf"].to_pylist()]

    @property
    def lengths(self) -> list[int]:
        return [length for batch in self._batches for length in pc.list_value_length(batch["tokens"]).to_pylist()]

    @property
    def learned(self) -> int:
        """Number of tokens in all rows that the loss covers."""
        return sum(pc.sum(pc.list_flatten(batch["learned"])).as_py() or 0 for batch in self._batches)


@dataclass(frozen=True)
class Packs(Sequence[dict[str, list[int]]]):
    """Model inputs, each made by `flatten` from the rows of one pack when it is asked for."""

    rows: TokenFile
    members: list[list[int]]
    """The indices of each pack's rows."""

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, index: Any) -> Any:
        return flatten([self.rows[row] for row in self.members[index]])

    @property
    def digest(self) -> str:
        return digest([file_digest(self.rows.path), self.members])


def token_file(folder: Path, dataset: Path, part: Split, base_model: Path, pack_tokens: int) -> Path:
    """Return the path, in `folder`, of the file with a split's encoded rows.

    Its name holds a hash of all that its content depends on: rows, tokenizer, longest piece, and the code that encodes.
    """
    settings = sorted(path for path in base_model.iterdir() if path.is_file() and path.suffix in (".json", ".jinja", ".model"))
    code = [file_digest(Path(str(module.__file__))) for module in (packing, template)]
    key = digest([file_digest(dataset), [[path.name, file_digest(path)] for path in settings], pack_tokens, code])
    return folder / f"tokens-{key}" / f"{part}.arrow"


def write_token_file(
    path: Path, dataset: Path, base_model: Path, pack_tokens: int, say: Say, interrupted: Callable[[], bool]
) -> None:
    """Encode the rows of the split that `path` is named after, unless the file exists.

    Rows stream from the Parquet file `dataset`. Many rows are encoded by up to four processes, of some 400 MiB each. Rows to
    train on are labelled by `encode` and cut into pieces of at most `pack_tokens` tokens; rows to validate on are labelled by
    `encode_answers`, and only the first piece that holds a part of an answer is kept.

    Raises:
        TokenError: the chat template refuses a row.
        Interrupted: `interrupted`, which is asked every few hundred rows, returned True; nothing was written.
    """
    if path.exists():
        return
    with pq.ParquetFile(dataset) as source, written_whole(path) as scratch:
        batches = (
            batch.filter(pc.equal(batch["part"], path.stem))
            for batch in source.iter_batches(_BATCH_ROWS, columns=["id", "messages", "unmask", "leaf", "part"])
        )
        work = partial(_encoded, base_model=base_model, training=path.stem == "train", most=pack_tokens)
        total = pc.sum(pc.equal(source.read(["part"])["part"], path.stem)).as_py() or 0
        progress = Progress(f"{path.stem} rows encoded", total, say)
        workers = min(4, len(os.sched_getaffinity(0))) if total >= _MANY_ROWS else 1
        counts = Counts()
        with pa.ipc.new_file(scratch, _SCHEMA) as writer:
            for encoded, found in _in_order(work, batches, workers):
                if interrupted():
                    raise Interrupted
                writer.write_batch(encoded)
                counts += found
                progress.advance(found.rows)
        write_json(path.with_suffix(".json"), asdict(counts))


def _in_order(work: Callable[[Any], Any], items: Iterable[Any], workers: int) -> Iterator[Any]:
    """Yield the result of each item in order, computed by `workers` processes; only a few items are held at a time."""
    if workers == 1:
        yield from map(work, items)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), die_with_parent) as pool:
        under_way = deque[Any]()
        for item in items:
            under_way.append(pool.submit(work, item))
            if len(under_way) > 2 * workers:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


_tokenizer = lru_cache(maxsize=1)(load_tokenizer)


def _encoded(batch: pa.RecordBatch, base_model: Path, training: bool, most: int) -> tuple[pa.RecordBatch, Counts]:
    tokenizer = _tokenizer(base_model)
    leaves: list[str | None] = []
    pieces: list[TokenRow] = []
    cut = unlearnable = 0
    for row in batch.to_pylist():
        encoded = encode(row, tokenizer) if training else encode_answers(row, tokenizer)
        found = split_row(encoded, most)
        kept = found if training else found[:1]
        cut += len(encoded.tokens) > most
        unlearnable += not found
        pieces += kept
        leaves += [row["leaf"]] * len(kept)
    learned = [[False, *(label != IGNORED for label in piece.labels[1:])] for piece in pieces]  # nothing predicts the first
    columns = [leaves, [piece.tokens for piece in pieces], learned]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
    return pa.record_batch(arrays, schema=_SCHEMA), Counts(len(batch), cut, unlearnable)
