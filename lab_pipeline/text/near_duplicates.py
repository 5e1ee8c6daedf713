"""Rows of different leaves that say nearly the same: MinHash finds candidates, their exact similarity decides.

Two rows are compared by the content words of their prompts and of their answers; the lower of the two similarities counts. So
the same answer to another question, another answer to the same question, and the same question on another context all stay.
Question words, 'yes', 'no' and mathematical signs count as content here: short rows may have little else to tell them apart.

MinHash with bands is written out (as in Leskovec, Rajaraman, Ullman, *Mining of Massive Datasets*, chapter 3): these few lines
of numpy are as quick as the libraries (`benchmarks/README.md`) and, unlike them, find the same candidates after an upgrade.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lab_pipeline.text.leaks import jaccard
from lab_pipeline.text.words import STOP_WORDS

NEAR_DUPLICATE = 0.8
"""Similarity (Jaccard, of content words) from which a row repeats another: that of `heldout.SAME_QUESTION`."""

_BANDS, _ROWS_PER_BAND = 32, 8
"""A pair of similarity 0.8 is found with probability 0.997, one of 0.85 with 0.9999; of those at 0.3, 1 in 500 is looked at."""

_FACTORS = (np.random.PCG64(17).random_raw((_BANDS, _ROWS_PER_BAND)) >> np.uint64(32)).astype(np.uint32) | 1
"""Odd factors: each, times the words' hashes, gives another order of all words (multiply-shift hashing)."""

_BATCH = 50_000
_HASH_BITS = np.uint64(48)
"""Of a word, so that its row's place within a batch fits above; the lowest bit says that the word stands in the answer."""

_SIGNS = "+*×/÷=^%<>"
_NO_WORD = rf"[^\p{{L}}\p{{M}}\p{{N}}{_SIGNS}]+"
_UNSPACED = rf"([\p{{Han}}\p{{Hiragana}}\p{{Katakana}}\p{{Thai}}{_SIGNS}])"
"""Signs, and scripts without spaces: each character counts as a word."""

_NO_CONTENT = STOP_WORDS - set("who whom whose when where why how yes no not".split())


@dataclass(frozen=True)
class Repeat:
    """Row `row` repeats the earlier row `of`."""

    row: int
    of: int
    similarity: float


def near_duplicates(batches: Iterable[pa.Table]) -> list[Repeat]:
    """Rows that repeat an earlier row of another leaf, each with the most similar one of those that stay.

    The order of the rows is their precedence: a row is out if one before it, which itself stays, is similar enough. Rows of one
    leaf are never compared, for curation has seen them side by side.

    Args:
        batches: together the rows; columns `messages` and `leaf` as in `rows.TRAINING_SCHEMA`.
    """
    hashes, starts, leaves = _word_sets(batches)
    keys = _band_keys(hashes, starts)
    shared = _shared_between_leaves(keys, leaves) & (np.diff(starts) > 0)[:, None]
    staying: dict[int, list[int]] = defaultdict(list)
    repeats = []

    def words(row: int) -> tuple[set[int], set[int]]:
        both = hashes[starts[row] : starts[row + 1]]
        answer = both & np.uint64(1) == 1
        return set(both[~answer].tolist()), set(both[answer].tolist())

    for row in np.flatnonzero(shared.any(axis=1)).tolist():
        mine, own = keys[row, shared[row]].tolist(), words(row)
        candidates = {other for key in mine for other in staying.get(key, ()) if leaves[other] != leaves[row]}
        similar = [(min(map(jaccard, own, words(other))), -other) for other in candidates]
        similarity, other = max(similar, default=(0.0, 0))
        if similarity >= NEAR_DUPLICATE:
            repeats.append(Repeat(row, -other, similarity))
        else:
            for key in mine:
                staying[key].append(row)
    return repeats


def _word_sets(batches: Iterable[pa.Table]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(hashes, starts, leaves): the words of row n are `hashes[starts[n]:starts[n + 1]]`, none twice; its leaf is a number."""
    hashes, sizes, leaves = [np.empty(0, np.uint64)], [np.zeros(1, np.int64)], []
    for batch in batches:
        leaves.append(batch["leaf"].combine_chunks())
        for start in range(0, batch.num_rows, _BATCH):
            part = batch["messages"].slice(start, _BATCH).combine_chunks()
            placed = np.sort(_placed_words(part))
            placed = placed[np.diff(placed, prepend=~placed[:1]) != 0]
            hashes.append(placed & _lowest(_HASH_BITS))
            sizes.append(np.bincount(placed >> _HASH_BITS, minlength=len(part)))
    numbers = pa.chunked_array(leaves, pa.string()).combine_chunks().dictionary_encode(null_encoding="encode").indices
    return np.concatenate(hashes), np.cumsum(np.concatenate(sizes)), numbers.to_numpy()


def _placed_words(messages: pa.ListArray) -> np.ndarray:
    """Every content word of all but system messages as a number: the row above the word's hash."""
    import pandas as pd

    turns = messages.flatten()
    row_of_turn = pc.list_parent_indices(messages).to_numpy().astype(np.uint64)
    answers = np.diff(row_of_turn, append=len(messages)) != 0
    said = pc.not_equal(turns.field("role"), "system").to_numpy(zero_copy_only=False)
    spaced = pc.replace_substring_regex(pc.utf8_lower(turns.field("content")), _UNSPACED, r" \1 ")
    split = pc.split_pattern_regex(spaced, _NO_WORD)
    words = split.flatten().dictionary_encode()
    hashed = pd.util.hash_array(words.dictionary.to_numpy(zero_copy_only=False), categorize=False)
    content = pc.invert(pc.is_in(words.dictionary, pa.array(["", *_NO_CONTENT]))).to_numpy(zero_copy_only=False)
    turn, code = pc.list_parent_indices(split).to_numpy(), words.indices.to_numpy()
    wanted = content[code] & said[turn]
    turn, code = turn[wanted], code[wanted]
    return row_of_turn[turn] << _HASH_BITS | (hashed & _lowest(_HASH_BITS) - np.uint64(1))[code] | answers[turn]


def _lowest(bits: np.uint64) -> np.uint64:
    return np.uint64((1 << int(bits)) - 1)


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
