"""Find prompts that repeat, or nearly repeat, known questions."""

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
"""Jaccard similarity of content words at which two questions count as the same, unless they `differ`."""

_MIN_SHARED = 2
"""Rare words that a prompt must share with a known question (if that has as many) before the two are compared."""

_BATCH = 50_000

_Worded = tuple[str, frozenset[str]]
"""A text with its `question_words`."""


class LeakDetector:
    """Finds prompts that repeat, or nearly repeat, known questions: see `SAME_QUESTION`.

    Compare prompts only, never documents, which hold the answers rightly. Ambiguous matches count as leaks: of words that
    changed places, only numbers and what they count make another question ('30 C to F', '30 F to C').
    """

    def __init__(self, questions: Iterable[str] = ()) -> None:
        self._known: list[_Worded] = []
        self._indexed: dict[str, list[int]] = defaultdict(list)
        """For each word, the places in `_known` of the questions that are indexed by it."""
        questions = list(questions)
        self._frequency = Counter(word for question in questions for word in question_words(question))
        for question in questions:
            self._enter(question)

    def add(self, question: str) -> None:
        self._frequency.update(question_words(question))
        self._enter(question)

    def _enter(self, question: str) -> None:
        """Index a question by its rarest words: the prefix filter of set-similarity joins.

        A similar prompt lacks at most `lacking` of the words. So of any `lacking + 2` words it has two, and the rarest ones
        are shared with the fewest other questions.
        """
        words = question_words(question)
        lacking = len(words) - math.ceil(SAME_QUESTION * len(words) - 1e-9)
        for word in sorted(words, key=lambda word: (self._frequency[word], word))[: lacking + _MIN_SHARED]:
            self._indexed[word].append(len(self._known))
        self._known.append((question, words))

    def leak(self, prompt: str) -> str | None:
        """Return the first known question that a prompt repeats, None if it repeats none."""
        return next(self.leaks(prompt), None)

    def leaks(self, prompt: str) -> Iterator[str]:
        """Yield all known questions that a prompt repeats."""
        words = question_words(prompt)
        sizes = range(int(SAME_QUESTION * len(words)), int(len(words) / SAME_QUESTION) + 2)
        shared = Counter(index for word in words for index in self._indexed.get(word, ()))
        for index in sorted(shared):
            question, known = self._known[index]
            if len(known) not in sizes or shared[index] < min(_MIN_SHARED, len(known)):
                continue
            if _same_question((prompt, words), (question, known)) and not _only_context_shared(prompt, question):
                yield question

    def leaks_among(self, prompts: pa.Array) -> dict[int, str]:
        """Map the place of each prompt that is a leak to the known question that it repeats; for millions of prompts."""
        if not self._known:
            return {}
        batches = range(0, len(prompts), _BATCH)
        suspects = [start + place for start in batches for place in self._suspects(prompts.slice(start, _BATCH))]
        return {place: leak for place in suspects if (leak := self.leak(prompts[place].as_py()))}

    def _suspects(self, prompts: pa.Array) -> list[int]:
        """Return the places of all prompts that may be leaks, by the first tests of `leaks`: size and shared rare words.

        Prompts without any content word are always among them, for `question_words` compares those by other words.
        """
        prompt, stem, vocabulary = _stems_by_prompt(prompts)
        size = np.bincount(prompt, minlength=len(prompts))
        known_size = np.array([len(words) for _, words in self._known])
        fits = SAME_QUESTION * size[prompt] <= known_size.max()
        prompt, stem = prompt[fits], stem[fits]

        question, origin = _concatenated([self._indexed.get(word, ()) for word in vocabulary], stem)
        prompt = prompt[origin]  # now each pair of a prompt and a question appears once for each rare word that they share
        smaller = np.minimum(known_size[question], size[prompt])
        larger = np.maximum(known_size[question], size[prompt])
        similar = smaller >= SAME_QUESTION * larger - 1e-9
        pairs, shared = np.unique(prompt[similar] * len(known_size) + question[similar], return_counts=True)
        prompt, question = np.divmod(pairs, len(known_size))
        enough = shared >= np.minimum(known_size[question], _MIN_SHARED)
        return np.union1d(prompt[enough], np.flatnonzero(size == 0)).tolist()


def _stems_by_prompt(prompts: pa.Array) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return pairs (place of a prompt, number of a stem), each once, as two arrays, and the stems by number."""
    split = pc.utf8_split_whitespace(prompts)
    chunks = split.flatten().dictionary_encode()
    stems = [question_stems(chunk) for chunk in chunks.dictionary.to_pylist()]
    number = {stem: place for place, stem in enumerate(dict.fromkeys(chain(*stems)))}
    stem, origin = _concatenated([[number[stem] for stem in each] for each in stems], chunks.indices.to_numpy())
    prompt = pc.list_parent_indices(split).to_numpy()[origin]
    return *np.divmod(distinct(prompt * len(number) + stem), max(len(number), 1)), list(number)


def _concatenated(lists: Sequence[Sequence[int]], chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `[item for index in chosen for item in lists[index]]`, and for each item its place in `chosen`."""
    items = np.fromiter(chain.from_iterable(lists), np.int64)
    lengths = np.array([len(each) for each in lists], np.int64)
    starts = np.cumsum(lengths) - lengths
    counts = lengths[chosen]
    origin = np.repeat(np.arange(len(chosen)), counts)
    within = np.arange(len(origin)) - (np.cumsum(counts) - counts)[origin]
    return items[starts[chosen][origin] + within], origin


def distinct(values: np.ndarray) -> np.ndarray:
    """Sort values and drop repeated ones; `np.unique` hashes them, which takes ten times as long."""
    ordered = np.sort(values)
    return ordered[np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]]


def _only_context_shared(one: str, other: str) -> bool:
    """Tell whether prompts share a context and ask different things: beside a long context the question's words weigh little.

    If a line of one prompt asks what the other one asks, they do not count as different.
    """
    sections, other_sections = _sections(one), _sections(other)
    if not sections or not other_sections:
        return False
    repeated = (_same_question(sections[0], section) for section in other_sections)
    return not any(repeated) and not any(_same_question(other_sections[0], section) for section in sections)


@functools.lru_cache(1 << 12)
def _sections(prompt: str) -> tuple[_Worded, ...]:
    """Split a prompt into its last paragraph, which asks, then all paragraphs and lines; into none if it has one paragraph."""
    paragraphs = re.split(r"\n\s*\n", prompt.strip())
    sections = dict.fromkeys([paragraphs[-1], *paragraphs, *prompt.splitlines()]) if len(paragraphs) > 1 else ()
    return tuple((section, question_words(section)) for section in sections)


def _same_question(one: _Worded, other: _Worded) -> bool:
    (text, words), (other_text, other_words) = one, other
    similar = jaccard(words, other_words) >= SAME_QUESTION
    return similar and not differ(text, other_text) and not _numbers_differ(text, other_text)


def _numbers_differ(one: str, other: str) -> bool:
    """Tell whether each text has a number that the other lacks, or numbers changed places."""
    found, others = numbers(one), numbers(other)
    return bool(found - others and others - found) or any(map(str.isdigit, exchanged(one, other)))


def differ(one: str, other: str) -> bool:
    """Tell whether questions of similar words ask for different things: for another kind of thing, or with other signs.

    A question that leaves the kind open, or has no signs, does not differ by them. 'What' can ask for anything, so it makes
    another kind only if all other words are the same.
    """
    kinds, other_kinds = asked_kinds(one), asked_kinds(other)
    if kinds and other_kinds and not kinds & other_kinds:
        return "what" not in kinds | other_kinds or question_words(one) == question_words(other)
    signs, other_signs = calculation(one), calculation(other)
    return bool(signs and other_signs) and signs != other_signs


def jaccard(one: Set[Any], other: Set[Any]) -> float:
    """Divide the size of the intersection by that of the union; 1.0 for two empty sets."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared) if one or other else 1.0
