"""Which seed questions are kept for the test, for ever.

A ledger remembers for every question ever seen whether it was *held out* or *used*. A question keeps its role through
edits, moves and deletions, so a question that a model was trained on never becomes a test, nor the other way round.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lab_pipeline.storage import Home, append_line, digest, read_lines
from lab_pipeline.taxonomy.leaf import Leaf, Seed
from lab_pipeline.words import asked_kinds, calculation, exchanged, numbers, question_stems, question_words

Role = Literal["held_out", "used", "set_aside"]
"""*set_aside*: neither shown nor asked, for it resembles a question of either role."""

MINIMUM_SEEDS = 3
"""A leaf with fewer seeds holds none out: it cannot spare one."""

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


def taught_questions(home: Home) -> LeakDetector:
    """What the rows of all data sets that were ever mixed here asked."""
    asked = set()
    for path in home.mixed_datasets():
        rows = pq.read_table(path, columns=["messages"], filters=[("source", "!=", "document")])
        asked |= {turn["content"] for messages in rows["messages"].to_pylist() for turn in messages if turn["role"] == "user"}
    return LeakDetector(sorted(asked))


def withheld_questions(home: Home) -> list[str]:
    """What every question asks that was ever held out."""
    return sorted({entry["asked"] for entry in read_lines(home.heldout_ledger) if entry["role"] == "held_out"})


class Ledger:
    """The append-only record of roles, `ledger.jsonl`.

    `taught` gives what rows asked so far, when a newcomer wants to know: a seed that comes after the teacher had the same
    idea is no test.
    """

    def __init__(self, path: Path, taught: Callable[[], LeakDetector] = LeakDetector) -> None:
        self.path = path
        self._taught = functools.cache(taught)
        self.roles: dict[str, Role] = {}
        self._asked: dict[Role, LeakDetector] = defaultdict(LeakDetector)
        for entry in read_lines(path):
            self._enter(entry["question"], entry["role"], entry["asked"])

    def _enter(self, identity: str, role: Role, asked: str) -> None:
        if identity not in self.roles:
            self.roles[identity] = role
            self._asked[role].add(asked)

    def assign(self, seed: Seed, leaf: str, hold_out: bool) -> Role:
        """Give a new question its role, held out if wanted and possible.

        A question that nearly repeats a used or taught one can only be used, one that nearly repeats a held-out one only
        held out.
        """
        like_used = self._asked["used"].leak(seed.asked) or self._taught().leak(seed.asked)
        like_held = self._asked["held_out"].leak(seed.asked)
        role: Role = "held_out" if hold_out else "used"
        if like_used and like_held:
            role = "set_aside"
        elif like_used or like_held:
            role = "used" if like_used else "held_out"
        append_line(self.path, {"question": seed.identity, "role": role, "leaf": leaf, "asked": seed.asked})
        self._enter(seed.identity, role, seed.asked)
        return role


def split_seeds(leaf: Leaf, ledger: Ledger, random_seed: int) -> tuple[list[Seed], list[Seed]]:
    """Part a leaf's seeds into (used, held out) and enter newcomers into the ledger.

    One of three questions of each knowledge context is held out, one of five seeds of a skill; where the ledger has no
    say, the choice is by hash of the question and `random_seed`. Newcomers that repeat each other share a role, and are held
    out only where most of the leaf's seeds stay in use: a leaf that holds out all of them could generate nothing.
    """

    def group(seed: Seed) -> int:
        return seed.group if leaf.kind == "knowledge" else 0

    sizes = Counter(map(group, leaf.seeds))
    wanted = {each: size // 3 if leaf.kind == "knowledge" else max(1, size // 5) for each, size in sizes.items()}
    most = (len(leaf.seeds) - 1) // 2 if len(leaf.seeds) >= MINIMUM_SEEDS else 0
    held = Counter(group(seed) for seed in leaf.seeds if ledger.roles.get(seed.identity) == "held_out")
    newcomers = [seed for seed in leaf.seeds if seed.identity not in ledger.roles]
    newcomers.sort(key=lambda seed: digest([random_seed, seed.identity]))
    for repeats in sorted(_repeating(newcomers), key=len):
        first = group(repeats[0])
        hold_out = held[first] < wanted[first] and held.total() + len(repeats) <= most
        for seed in repeats:
            if seed.identity not in ledger.roles:
                ledger.assign(seed, leaf.key, hold_out)
            held[group(seed)] += ledger.roles[seed.identity] == "held_out"
    used = [seed for seed in leaf.seeds if ledger.roles[seed.identity] == "used"]
    return used, [seed for seed in leaf.seeds if ledger.roles[seed.identity] == "held_out"]


def _repeating(seeds: list[Seed]) -> list[list[Seed]]:
    """Seeds in sets of those that repeat each other, directly or through a third; most are alone."""
    detector = LeakDetector(seed.asked for seed in seeds)
    sets = {seed.asked: [seed.asked] for seed in seeds}
    for seed in seeds:
        for repeated in detector.leaks(seed.asked):
            mine, other = sets[seed.asked], sets[repeated]
            if mine is not other:
                mine += other
                sets.update(dict.fromkeys(other, mine))
    parts: dict[int, list[Seed]] = defaultdict(list)
    for seed in seeds:
        parts[id(sets[seed.asked])].append(seed)
    return list(parts.values())
