"""Which seed questions are kept for the test, for ever.

A ledger remembers for every question ever seen whether it was *held out* or *used*. A question keeps its role through
edits, moves and deletions, so a question that a model was trained on never becomes a test, nor the other way round.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Set
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from lab_pipeline.storage import Home, append_line, digest, read_lines
from lab_pipeline.taxonomy.leaf import Leaf, Seed
from lab_pipeline.words import FRAMING, asked_kinds, calculation, content_words, exchanged, numbers

Role = Literal["held_out", "used", "set_aside"]
"""*set_aside*: neither shown nor asked, for it resembles a question of either role."""

MINIMUM_SEEDS = 3
"""A leaf with fewer seeds holds none out: it cannot spare one."""

SAME_QUESTION = 0.8
"""Jaccard similarity of the content words from which two questions count as the same one, unless they `differ`."""


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
        # A text without any of this many of its words is not similar enough. So it is found by the rarest of them alone, which
        # few other texts hold: the prefix filter of set-similarity joins.
        needed = len(words) - math.ceil(SAME_QUESTION * len(words) - 1e-9) + 1
        for word in sorted(words, key=lambda word: (self._frequency[word], word))[:needed]:
            self._holding[word].append(len(self._known))
        self._known.append((question, words))

    def leak(self, asked: str) -> str | None:
        """The known question that `asked` repeats, None if it repeats none."""
        return next(self.leaks(asked), None)

    def leaks(self, asked: str) -> Iterator[str]:
        """All known questions that `asked` repeats."""
        words = question_words(asked)
        sizes = range(int(SAME_QUESTION * len(words)), int(len(words) / SAME_QUESTION) + 2)
        for index in sorted({index for word in words if word in self._holding for index in self._holding[word]}):
            question, known = self._known[index]
            alike = len(known) in sizes and jaccard(words, known) >= SAME_QUESTION
            if alike and not differ(asked, question) and not _renumbered(asked, question):
                yield question


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


@functools.lru_cache(4096)
def question_words(text: str) -> frozenset[str]:
    """Stems of a question's content words, by which questions are compared."""
    return frozenset(content_words(text)) - FRAMING or frozenset(re.findall(r"\w+", text.casefold()))


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
    say, the choice is by hash of the question and `random_seed`.
    """
    groups: dict[int, list[Seed]] = defaultdict(list)
    for seed in leaf.seeds:
        groups[seed.group if leaf.kind == "knowledge" else 0].append(seed)
    enough = len(leaf.seeds) >= MINIMUM_SEEDS
    for members in groups.values():
        share = len(members) // 3 if leaf.kind == "knowledge" else max(1, len(members) // 5)
        wanted = share if enough else 0
        held = sum(ledger.roles.get(seed.identity) == "held_out" for seed in members)
        newcomers = {seed.identity: seed for seed in members if seed.identity not in ledger.roles}
        for identity in sorted(newcomers, key=lambda identity: digest([random_seed, identity])):
            held += ledger.assign(newcomers[identity], leaf.key, hold_out=held < wanted) == "held_out"
    used = [seed for seed in leaf.seeds if ledger.roles[seed.identity] == "used"]
    return used, [seed for seed in leaf.seeds if ledger.roles[seed.identity] == "held_out"]
