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

from lab_pipeline.text.questions import asked_kinds, calculation, exchanged, question_stems, question_words
from lab_pipeline.text.words import numbers

SAME_QUESTION = 0.8
"""Minimum Jaccard similarity of content words of two questions that count as the same; they also must not `differ`, nor have
different numbers."""

_MIN_SHARED = 2
"""Number of rare words that a prompt must share with a known question before the two are compared; a known question with
fewer words must share all of them."""

_BATCH = 50_000

_Worded = tuple[str, frozenset[str]]
"""A text with its `question_words`."""


def may_repeat(prompt: str, known: Iterable[str]) -> list[str]:
    """Return those of the known questions that hold enough words of a prompt for a `LeakDetector` to call it a leak.

    For a few prompts this is quicker than a detector of all the known questions, and needs no memory for its index.
    """
    words = question_words(prompt)
    least = SAME_QUESTION * len(words) - 1e-9
    return [question for question in known if len(words & question_words(question)) >= least]


class LeakDetector:
    """Finds prompts that repeat, or nearly repeat, known questions (see `SAME_QUESTION`).

    Give it prompts only: documents may rightly hold the answers. Ambiguous matches count as leaks. Two texts of the same words
    in another order are different questions only if numbers, or the words after them, changed places: '30 C to F', '30 F to C'.
    """

    def __init__(self, questions: Iterable[str] = ()) -> None:
        self._known: list[_Worded] = []
        self._indexed: dict[str, list[int]] = defaultdict(list)
        """For each rare word, the indices in `_known` of the questions that are found by it."""
        worded = [(question, question_words(question)) for question in questions]
        self._frequency = Counter(chain.from_iterable(words for _, words in worded))
        for question, words in worded:
            self._enter(question, words)

    def add(self, question: str) -> None:
        words = question_words(question)
        self._frequency.update(words)
        self._enter(question, words)

    def _enter(self, question: str, words: frozenset[str]) -> None:
        """Index a question by its rarest words: the prefix filter of set-similarity joins.

        A similar prompt lacks at most `lacking` of the question's words, so it has two of any `lacking + _MIN_SHARED` of them.
        The rarest words are taken, because they lead to the fewest other questions.
        """
        lacking = len(words) - math.ceil(SAME_QUESTION * len(words) - 1e-9)
        for word in sorted(words, key=lambda word: (self._frequency[word], word))[: lacking + _MIN_SHARED]:
            self._indexed[word].append(len(self._known))
        self._known.append((question, words))

    def leak(self, prompt: str) -> str | None:
        """Return the known question that a prompt repeats; the one known longest if several, None if there is none."""
        return next(self.leaks(prompt), None)

    def leaks(self, prompt: str) -> Iterator[str]:
        """Yield all known questions that a prompt repeats, in the order in which they became known."""
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
        """Map the index of each prompt that is a leak to the earliest known question that it repeats; fast for millions."""
        if not self._known:
            return {}
        batches = range(0, len(prompts), _BATCH)
        suspects = [start + place for start in batches for place in self._suspects(prompts.slice(start, _BATCH))]
        return {place: leak for place in suspects if (leak := self.leak(prompts[place].as_py()))}

    def _suspects(self, prompts: pa.Array) -> list[int]:
        """Return the indices of all prompts that pass the first two tests of `leaks`: similar size and shared rare words.

        Prompts without any content word always pass, because `question_words` compares such prompts by their other words.
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
    """Return each pair (index of a prompt, number of one of its stems) once, as two arrays, and the stems by their number."""
    split = pc.utf8_split_whitespace(prompts)
    chunks = split.flatten().dictionary_encode()
    stems = [question_stems(chunk) for chunk in chunks.dictionary.to_pylist()]
    number = {stem: place for place, stem in enumerate(dict.fromkeys(chain(*stems)))}
    stem, origin = _concatenated([[number[stem] for stem in each] for each in stems], chunks.indices.to_numpy())
    prompt = pc.list_parent_indices(split).to_numpy()[origin]
    return *np.divmod(distinct(prompt * len(number) + stem), max(len(number), 1)), list(number)


def _concatenated(lists: Sequence[Sequence[int]], chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `[item for index in chosen for item in lists[index]]`, and for each item the place in `chosen` that it is from."""
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
    """Tell whether two similar prompts share their context alone, and ask different things about it.

    Beside a long context, the few words of a question hardly change the similarity. Prompts count as asking the same if any
    paragraph or line of one repeats the last paragraph of the other, which holds its question, or if one has one paragraph.
    """
    sections, other_sections = _sections(one), _sections(other)
    if not sections or not other_sections:
        return False
    repeated = (_same_question(sections[0], section) for section in other_sections)
    return not any(repeated) and not any(_same_question(other_sections[0], section) for section in sections)


@functools.lru_cache(1 << 12)
def _sections(prompt: str) -> tuple[_Worded, ...]:
    """Return a prompt's last paragraph, which asks, then all its paragraphs and lines; nothing if it has one paragraph."""
    paragraphs = re.split(r"\n\s*\n", prompt.strip())
    sections = dict.fromkeys([paragraphs[-1], *paragraphs, *prompt.splitlines()]) if len(paragraphs) > 1 else ()
    return tuple((section, question_words(section)) for section in sections)


def _same_question(one: _Worded, other: _Worded) -> bool:
    (text, words), (other_text, other_words) = one, other
    similar = jaccard(words, other_words) >= SAME_QUESTION
    return similar and not differ(text, other_text) and not _numbers_differ(text, other_text)


def _numbers_differ(one: str, other: str) -> bool:
    """Tell whether two texts differ in their numbers: each has one that the other lacks, or two numbers were swapped.

    '5 pears and 3 apples' and '3 pears and 5 apples' swap two numbers. '3 apples, 5 pears' only reorders '5 pears, 3 apples',
    and does not count. A number that only one text has is no difference if that text has all numbers of the other. Swaps are
    found among numbers in digits only, not among number words.
    """
    found, others = numbers(one), numbers(other)
    return bool(found - others and others - found) or any(map(str.isdigit, exchanged(one, other)))


def differ(one: str, other: str) -> bool:
    """Tell whether two questions of similar words ask for different kinds of thing, or state different calculations.

    The kinds are compared only if both questions show one (`asked_kinds`), the calculations only if both have signs
    (`calculation`). 'What' can ask for anything, so it makes another kind only if all content words are the same.
    """
    kinds, other_kinds = asked_kinds(one), asked_kinds(other)
    if kinds and other_kinds and not kinds & other_kinds:
        return "what" not in kinds | other_kinds or question_words(one) == question_words(other)
    signs, other_signs = calculation(one), calculation(other)
    return bool(signs and other_signs) and signs != other_signs


def jaccard(one: Set[Any], other: Set[Any]) -> float:
    """Return the size of the intersection divided by that of the union; 1.0 for two empty sets."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared) if one or other else 1.0
