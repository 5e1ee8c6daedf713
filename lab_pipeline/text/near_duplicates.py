"""Find near-duplicate rows of different leaves: MinHash finds pairs of rows to compare, and their exact similarity decides.

Prompts and answers are compared by their content words, and the lower of the two similarities counts. So the same answer to
another question is no repeat, nor is another answer to the same question, nor the same question on another context. Question
words, 'yes', 'no' and mathematical signs count as content here, because short rows may have little else to tell them apart.

MinHash with bands follows Leskovec, Rajaraman, Ullman, *Mining of Massive Datasets*, chapter 3. These few lines of numpy are
as fast as libraries (`benchmarks/README.md`) and, unlike them, find the same candidates after an upgrade.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lab_pipeline.text.leaks import distinct, jaccard
from lab_pipeline.text.words import STOP_WORDS

NEAR_DUPLICATE = 0.8
"""Minimum Jaccard similarity of prompts, and of answers, at which a row repeats another; as `leaks.SAME_QUESTION`."""

_BANDS, _ROWS_PER_BAND = 32, 8
"""MinHash finds a pair of similarity 0.8 with probability 0.997, of 0.85 with 0.9999, of 0.3 with 0.002."""

_FACTORS = (np.random.PCG64(17).random_raw((_BANDS, _ROWS_PER_BAND)) >> np.uint64(32)).astype(np.uint32) | 1
"""Odd factors, one for each hash function: multiplied by it, the words' hashes get another order (multiply-shift hashing)."""

_BATCH = 50_000

_ROW_SHIFT = np.uint64(48)
_HASH = np.uint64((1 << 48) - 1)
_IN_ANSWER = np.uint64(1)
"""A word of a batch is packed into 64 bits: 16 for its row, 47 for its hash, and the lowest bit is 1 in an answer."""

_SIGNS = "+*×/÷=^%<>"
_NO_WORD = rf"[^\p{{L}}\p{{M}}\p{{N}}{_SIGNS}]+"
_UNSPACED = rf"([\p{{Han}}\p{{Hiragana}}\p{{Katakana}}\p{{Thai}}{_SIGNS}])"
"""Signs, and scripts without spaces: each character counts as a word."""

_NO_CONTENT = STOP_WORDS - set("who whom whose when where why how yes no not".split())


@dataclass(frozen=True)
class Repeat:
    """Row `row` repeats the earlier row `of` (counted from 0 over all rows), with the lower of the two similarities."""

    row: int
    of: int
    similarity: float


@dataclass(frozen=True)
class _Rows:
    """The content words of all rows, as hashes, and the rows' leaves."""

    hashes: np.ndarray
    """Hashes of the words, row after row. In a row, each word has one hash for the prompt and one for the answer, which differ
    in the lowest bit, `_IN_ANSWER`."""
    starts: np.ndarray
    """The hashes of row n are `hashes[starts[n]:starts[n + 1]]`."""
    leaves: np.ndarray
    """The number of each row's leaf; rows without a leaf share one number."""

    def words(self, row: int) -> tuple[set[int], set[int]]:
        """Return the hashes of the words in a row's prompt, and of those in its answer."""
        both = self.hashes[self.starts[row] : self.starts[row + 1]]
        in_answer = both & _IN_ANSWER == 1
        return set(both[~in_answer].tolist()), set(both[in_answer].tolist())


def near_duplicates(batches: Iterable[pa.Table]) -> list[Repeat]:
    """Find the rows that repeat an earlier row of another leaf; all other rows stay.

    A row is compared with earlier rows that stay, and if one is similar enough, paired with the most similar. Rows of one leaf
    are never compared, because curation has done that. Rows without any content word always stay.

    Args:
        batches: All rows in order of precedence; columns `messages` and `leaf` as in `TRAINING_SCHEMA`.
    """
    rows = _hashed(batches)
    keys = _band_keys(rows)
    shared = _shared_between_leaves(keys, rows.leaves) & (np.diff(rows.starts) > 0)[:, None]
    staying: dict[int, list[int]] = defaultdict(list)  # the staying rows with each key
    repeats = []
    for row in np.flatnonzero(shared.any(axis=1)).tolist():
        row_keys, words = keys[row, shared[row]].tolist(), rows.words(row)
        candidates = {other for key in row_keys for other in staying.get(key, ()) if rows.leaves[other] != rows.leaves[row]}
        similarities = {other: min(map(jaccard, words, rows.words(other))) for other in sorted(candidates)}
        best = max(similarities, key=similarities.__getitem__, default=row)  # in a tie, the earliest row
        if similarities.get(best, 0.0) >= NEAR_DUPLICATE:
            repeats.append(Repeat(row, best, similarities[best]))
        else:
            for key in row_keys:
                staying[key].append(row)
    return repeats


def _hashed(batches: Iterable[pa.Table]) -> _Rows:
    hashes, sizes, leaves = [np.empty(0, np.uint64)], [np.zeros(1, np.int64)], []
    for batch in batches:
        leaves.append(batch["leaf"].combine_chunks())
        for start in range(0, batch.num_rows, _BATCH):
            messages = batch["messages"].slice(start, _BATCH).combine_chunks()
            words = distinct(_packed_words(messages))
            hashes.append(words & _HASH)
            sizes.append(np.bincount(words >> _ROW_SHIFT, minlength=len(messages)))
    numbers = pa.chunked_array(leaves, pa.string()).combine_chunks().dictionary_encode(null_encoding="encode").indices
    return _Rows(np.concatenate(hashes), np.cumsum(np.concatenate(sizes)), numbers.to_numpy())


def _packed_words(messages: pa.ListArray) -> np.ndarray:
    """Pack every content word of all messages but the system's, with its row and whether it is in the last turn, the answer.

    `_IN_ANSWER` describes the format.
    """
    import pandas as pd

    turns = messages.flatten()
    row = pc.list_parent_indices(messages).to_numpy().astype(np.uint64)
    is_answer = np.diff(row, append=len(messages)) != 0  # the last turn of a row
    counts = pc.not_equal(turns.field("role"), "system").to_numpy(zero_copy_only=False)

    spaced = pc.replace_substring_regex(pc.utf8_lower(turns.field("content")), _UNSPACED, r" \1 ")
    split = pc.split_pattern_regex(spaced, _NO_WORD)
    words = split.flatten().dictionary_encode()
    vocabulary = words.dictionary
    hashes = pd.util.hash_array(vocabulary.to_numpy(zero_copy_only=False), categorize=False) & (_HASH - _IN_ANSWER)
    is_content = pc.invert(pc.is_in(vocabulary, pa.array(["", *_NO_CONTENT]))).to_numpy(zero_copy_only=False)

    turn, word = pc.list_parent_indices(split).to_numpy(), words.indices.to_numpy()
    wanted = is_content[word] & counts[turn]
    turn, word = turn[wanted], word[wanted]
    return row[turn] << _ROW_SHIFT | hashes[word] | is_answer[turn]


def _band_keys(rows: _Rows) -> np.ndarray:
    """Return MinHash keys of shape (rows, bands).

    Rows have the same key in a band if, by each hash function of the band, the same word has the least hash.
    """
    keys = np.zeros((len(rows.starts) - 1, _BANDS), np.uint32)
    for first in range(0, len(keys), _BATCH):
        bounds = rows.starts[first : first + _BATCH + 1]
        words = rows.hashes[bounds[0] : bounds[-1]].astype(np.uint32)
        hashed = np.empty_like(words)
        filled = np.flatnonzero(np.diff(bounds))  # `reduceat` needs a word in each row
        starts = bounds[filled] - bounds[0]
        for band, factors in enumerate(_FACTORS):
            key = np.zeros(len(filled), np.uint32)
            for factor in factors:
                np.multiply(words, factor, out=hashed)
                key = (key ^ np.minimum.reduceat(hashed, starts)) * _FACTORS[0, 0]
            keys[first + filled, band] = key
    return keys


def _shared_between_leaves(keys: np.ndarray, leaves: np.ndarray) -> np.ndarray:
    """Tell for each of `keys` (rows, bands) whether a row of another leaf has the same key in the same band."""
    shared = np.zeros(keys.shape, bool)
    for band in range(_BANDS):
        order = np.argsort(keys[:, band], kind="stable")
        starts = np.flatnonzero(np.diff(keys[order, band], prepend=-1))  # where each run of equal keys starts
        lowest, highest = np.minimum.reduceat(leaves[order], starts), np.maximum.reduceat(leaves[order], starts)
        shared[order, band] = np.repeat(lowest != highest, np.diff(starts, append=len(keys)))
    return shared
