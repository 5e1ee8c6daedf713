"""Find texts that repeat, or nearly repeat, known questions."""

from __future__ import annotations

import functools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence, Set
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lab_pipeline.text.words import asked_kinds, calculation, exchanged, numbers, question_stems, question_words

SAME_QUESTION = 0.8
"""Jaccard similarity of the content words from which two questions count as the same one, unless they `differ`."""


_SHARED = 2
"""Rare words that a text must share with a known question to be compared with it, if the question has as many."""


_TEXTS_AT_ONCE = 50_000


class LeakDetector:
    """Finds texts that repeat, or nearly repeat, known questions: `SAME_QUESTION`.

    Compared is what a model is asked, never the document, which rightly holds the answers. In doubt a text is a leak: of words
    that changed places, only numbers, and what they count, make another question ('30 C to F', '30 F to C').
    """

    def __init__(self, questions: Iterable[str] = ()) -> None:
        self._known: list[tuple[str, frozenset[str]]] = []
        self._holding: dict[str, list[int]] = defaultdict(list)
        """Places in `_known` by word."""
        self._frequency: Counter[str] = Counter()
        questions = list(questions)
        for question in questions:
            self._frequency.update(question_words(question))
        for question in questions:
            self._enter(question)

    def add(self, question: str) -> None:
        self._frequency.update(question_words(question))
        self._enter(question)

    def _enter(self, question: str) -> None:
        words = question_words(question)
        # A similar text lacks at most so many of its words. So it has two of any two more, and is found by the rarest, which
        # few other texts hold: the prefix filter of set-similarity joins.
        lacking = len(words) - math.ceil(SAME_QUESTION * len(words) - 1e-9)
        for word in sorted(words, key=lambda word: (self._frequency[word], word))[: lacking + _SHARED]:
            self._holding[word].append(len(self._known))
        self._known.append((question, words))

    def leak(self, asked: str) -> str | None:
        """The known question that `asked` repeats, None if it repeats none."""
        return next(self.leaks(asked), None)

    def leaks(self, asked: str) -> Iterator[str]:
        """All known questions that `asked` repeats."""
        words = question_words(asked)
        sizes = range(int(SAME_QUESTION * len(words)), int(len(words) / SAME_QUESTION) + 2)
        shared = Counter(index for word in words for index in self._holding.get(word, ()))
        for index in sorted(shared):
            question, known = self._known[index]
            alike = len(known) in sizes and shared[index] >= min(_SHARED, len(known)) and jaccard(words, known) >= SAME_QUESTION
            if not alike or _asks_otherwise(asked, question):
                continue
            if not differ(asked, question) and not _renumbered(asked, question):
                yield question

    def leaks_among(self, asked: pa.Array) -> dict[int, str]:
        """The known question that each of very many texts repeats, by place; those that repeat none are left out."""
        if not self._known:
            return {}
        found = {}
        for start in range(0, len(asked), _TEXTS_AT_ONCE):
            some = asked.slice(start, _TEXTS_AT_ONCE)
            for place in self._suspects(some):
                if leak := self.leak(some[place].as_py()):
                    found[start + place] = leak
        return found

    def _suspects(self, asked: pa.Array) -> list[int]:
        """The places of all texts that repeat a known question, and of a few others: those of like size that share enough of
        its rare words, and those without any content word."""
        split = pc.utf8_split_whitespace(asked)
        parts = split.flatten().dictionary_encode()
        stems = [question_stems(part) for part in parts.dictionary.to_pylist()]
        distinct = {stem: number for number, stem in enumerate(dict.fromkeys(chain(*stems)))}
        stem, place = _expanded(stems, [distinct[stem] for stem in chain(*stems)], parts.indices.to_numpy())
        texts = pc.list_parent_indices(split).to_numpy()[place]
        once = np.sort(texts * len(distinct) + stem)  # np.unique hashes, which takes ten times as long
        text, stem = np.divmod(once[np.diff(once, prepend=-1) != 0], max(len(distinct), 1))
        size = np.bincount(text, minlength=len(asked))

        known = np.array([len(words) for _, words in self._known])
        fits = SAME_QUESTION * size[text] <= known.max()
        text, stem = text[fits], stem[fits]
        holding = [self._holding.get(stem, ()) for stem in distinct]
        question, place = _expanded(holding, [*chain(*holding)], stem)
        text = text[place]
        alike = np.minimum(known[question], size[text]) >= SAME_QUESTION * np.maximum(known[question], size[text]) - 1e-9
        pairs, shared = np.unique(text[alike] * len(known) + question[alike], return_counts=True)
        text, question = np.divmod(pairs, len(known))
        return np.union1d(text[shared >= np.minimum(known[question], _SHARED)], np.flatnonzero(size == 0)).tolist()


def _expanded(lists: Sequence[Sequence[Any]], items: list[int], places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(items, where): the items of the list at each place, one after the other, and at which of the places each stands.

    Args:
        items: of all lists, as numbers.
    """
    sizes = np.array([len(each) for each in lists], np.int64)
    counts, begins = sizes[places], (np.cumsum(sizes) - sizes)[places]
    where = np.repeat(np.arange(len(places)), counts)
    return np.array(items, np.int64)[np.arange(len(where)) - (np.cumsum(counts) - counts - begins)[where]], where


def _asks_otherwise(one: str, other: str) -> bool:
    """Whether the question below a context that two texts share is another one: beside a long context its words weigh little.

    In doubt, as where a line of either asks what the other one does, it is not.
    """
    mine, others = _parts(one), _parts(other)
    if not mine or not others:
        return False
    return not any(_alike(mine[0], part) for part in others) and not any(_alike(others[0], part) for part in mine)


@functools.lru_cache(1 << 12)
def _parts(text: str) -> tuple[tuple[str, frozenset[str]], ...]:
    """The last paragraph, which asks, then all paragraphs and lines, each with its words; empty for a single paragraph."""
    paragraphs = re.split(r"\n\s*\n", text.strip())
    parts = dict.fromkeys([paragraphs[-1], *paragraphs, *text.splitlines()]) if len(paragraphs) > 1 else ()
    return tuple((part, question_words(part)) for part in parts)


def _alike(one: tuple[str, frozenset[str]], other: tuple[str, frozenset[str]]) -> bool:
    near = jaccard(one[1], other[1]) >= SAME_QUESTION
    return near and not differ(one[0], other[0]) and not _renumbered(one[0], other[0])


def _renumbered(one: str, other: str) -> bool:
    """Whether each has a number that the other lacks, or numbers changed places."""
    mine, others = numbers(one), numbers(other)
    return bool(mine - others and others - mine) or any(map(str.isdigit, exchanged(one, other)))


def differ(one: str, other: str) -> bool:
    """Whether questions of like words ask for different things all the same: for another kind of thing, or with other signs.

    A question that leaves the kind open, or has no signs, differs from none by them. 'What' leaves much to the words, so it
    asks for another kind only where these are the same.
    """
    kinds, other_kinds = asked_kinds(one), asked_kinds(other)
    if kinds and other_kinds and not kinds & other_kinds:
        return "what" not in kinds | other_kinds or question_words(one) == question_words(other)
    signs, other_signs = calculation(one), calculation(other)
    return bool(signs and other_signs) and signs != other_signs


def jaccard(one: Set[Any], other: Set[Any]) -> float:
    """Size of the intersection over that of the union; 1.0 for two empty sets."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared) if one or other else 1.0
