"""Rows of different leaves that say nearly the same: MinHash finds candidates, their exact similarity decides.

Two rows are compared by the content words of question and answer, each word counted where it stands, so that the same answer
to another question, or another name or number in the same sentence, tells them apart. Their contexts, where they have any,
must be as similar.

MinHash with bands is written out (as in Leskovec, Rajaraman, Ullman, *Mining of Massive Datasets*, chapter 3): these few lines
of numpy are as quick as the libraries (`benchmarks/README.md`) and, unlike them, find the same candidates after an upgrade.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lab_pipeline.datasets.heldout import STOP_WORDS, jaccard, question_words

NEAR_DUPLICATE = 0.8
"""Similarity (Jaccard, of content words) from which a row repeats another: that of `heldout.SAME_QUESTION`."""

_BANDS, _ROWS_PER_BAND = 32, 8
"""A pair of similarity 0.8 is found with probability 0.997, one of 0.85 with 0.9999; of pairs at 0.3, one in 500 is looked at."""

_FACTORS = (np.random.PCG64(17).random_raw((_BANDS, _ROWS_PER_BAND)) >> np.uint64(32)).astype(np.uint32) | 1
"""Odd factors: each, times the words' hashes, gives another order of all words (multiply-shift hashing)."""

_BATCH = 50_000
_HASH_BITS = np.uint64(48)
_HASH = np.uint64(2**48 - 1)
"""Of the words, so that a row's place within a batch fits above it."""

_NO_WORD = r"[^\p{L}\p{M}\p{N}]+"
_UNSPACED = r"([\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}])"
"""Scripts without spaces: each character counts as a word."""


@dataclass(frozen=True)
class Repeat:
    """Row `row` repeats the earlier row `of`."""

    row: int
    of: int
    similarity: float


def near_duplicates(rows: pa.Table) -> list[Repeat]:
    """Rows that repeat an earlier row of another leaf, each with the most similar one of those that stay.

    The order of the rows is their precedence: a row is out if one before it, which itself stays, is similar enough. Rows of one
    leaf are never compared, for curation has seen them side by side.

    Args:
        rows: has the columns `question`, `answer` (texts), `context` (texts or nulls) and `leaf`.
    """
    hashes, starts = _word_sets(rows)
    leaves = rows["leaf"].combine_chunks().dictionary_encode(null_encoding="encode").indices.to_numpy()
    keys = _band_keys(hashes, starts)
    shared = _shared_between_leaves(keys, leaves) & (np.diff(starts) > 0)[:, None]
    staying: dict[int, list[int]] = defaultdict(list)
    repeats = []

    def words(row: int) -> set[int]:
        return set(hashes[starts[row] : starts[row + 1]].tolist())

    for row in np.flatnonzero(shared.any(axis=1)).tolist():
        mine, own = keys[row, shared[row]].tolist(), words(row)
        candidates = {other for key in mine for other in staying.get(key, ()) if leaves[other] != leaves[row]}
        similar = [(jaccard(own, words(other)), -other) for other in candidates]
        similar = [(min(each, _of_contexts(rows, row, -other)), other) for each, other in similar if each >= NEAR_DUPLICATE]
        similarity, other = max(similar, default=(0.0, 0))
        if similarity >= NEAR_DUPLICATE:
            repeats.append(Repeat(row, -other, similarity))
        else:
            for key in mine:
                staying[key].append(row)
    return repeats


def _of_contexts(rows: pa.Table, *pair: int) -> float:
    return jaccard(*(question_words(rows["context"][row].as_py() or "") for row in pair))


def _word_sets(rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """(hashes, starts): those of row n are `hashes[starts[n]:starts[n + 1]]`, none twice."""
    hashes, sizes = [np.empty(0, np.uint64)], [np.zeros(1, np.int64)]
    for start in range(0, rows.num_rows, _BATCH):
        batch = rows.slice(start, _BATCH)
        places = [_placed_words(batch[column], mark) for mark, column in enumerate(("question", "answer"))]
        placed = np.sort(np.concatenate(places))
        placed = placed[np.diff(placed, prepend=~placed[:1]) != 0]
        hashes.append(placed & _HASH)
        sizes.append(np.bincount(placed >> _HASH_BITS, minlength=batch.num_rows))
    return np.concatenate(hashes), np.cumsum(np.concatenate(sizes))


def _placed_words(texts: pa.ChunkedArray, mark: int) -> np.ndarray:
    """Every content word as a number: the text's place in the batch above the word's hash, which is another for each mark."""
    import pandas as pd

    spaced = pc.replace_substring_regex(pc.utf8_lower(texts), _UNSPACED, r" \1 ")
    lists = pc.split_pattern_regex(spaced, _NO_WORD).combine_chunks()
    words = lists.flatten().dictionary_encode()
    hashed = pd.util.hash_array(words.dictionary.to_numpy(zero_copy_only=False), categorize=False) ^ np.uint64(mark)
    content = pc.invert(pc.is_in(words.dictionary, pa.array(["", *STOP_WORDS]))).to_numpy(zero_copy_only=False)
    placed = pc.list_parent_indices(lists).to_numpy().astype(np.uint64) << _HASH_BITS
    codes = words.indices.to_numpy()
    return (placed | (hashed & _HASH)[codes])[content[codes]]


def _band_keys(hashes: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Keys of shape (rows, bands): rows that share the lowest words of one band's orders share its key."""
    keys = np.zeros((len(starts) - 1, _BANDS), np.uint32)
    for first in range(0, len(keys), _BATCH):
        bounds = starts[first : first + _BATCH + 1]
        words = hashes[bounds[0] : bounds[-1]].astype(np.uint32)
        ordered = np.empty_like(words)
        some = np.flatnonzero(np.diff(bounds))
        begins = bounds[some] - bounds[0]
        for band, factors in enumerate(_FACTORS):
            key = np.zeros(len(some), np.uint32)
            for factor in factors:
                np.multiply(words, factor, out=ordered)
                key = (key ^ np.minimum.reduceat(ordered, begins)) * _FACTORS[0, 0]
            keys[first + some, band] = key
    return keys


def _shared_between_leaves(keys: np.ndarray, leaves: np.ndarray) -> np.ndarray:
    """Of the shape of `keys`: whether rows of another leaf have the key as well."""
    shared = np.zeros(keys.shape, bool)
    for band in range(_BANDS):
        order = np.argsort(keys[:, band], kind="stable")
        bounds = np.flatnonzero(np.diff(keys[order, band], prepend=-1))
        lowest, highest = np.minimum.reduceat(leaves[order], bounds), np.maximum.reduceat(leaves[order], bounds)
        shared[order, band] = np.repeat(lowest != highest, np.diff(bounds, append=len(keys)))
    return shared
