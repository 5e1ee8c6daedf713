"""Which seed questions are kept for the test, for ever.

A ledger remembers for every question ever seen whether it was *held out* or *used*. A question keeps its role through
edits, moves and deletions, so a question that a model was trained on never becomes a test, nor the other way round.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lab_pipeline.storage import append_line, digest, read_lines
from lab_pipeline.taxonomy.leaf import Leaf, Seed

Role = Literal["held_out", "used"]

MINIMUM_SEEDS = 3
"""A leaf with fewer seeds holds none out: it cannot spare one."""

SAME_QUESTION = 0.8
"""Jaccard similarity of the content words from which two questions count as the same one."""

_STOP_WORDS = frozenset(
    "a an the of in on at to for from by with and or is are was were be been do does did has have had it its this that "
    "which what who whom whose when where how why there name called".split()
)


class Ledger:
    """The append-only record of roles, `ledger.jsonl`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.roles: dict[str, Role] = {}
        for entry in read_lines(path):
            self.roles.setdefault(entry["question"], entry["role"])

    def assign(self, seed: Seed, leaf: str, role: Role) -> None:
        """Give a question its role; the first one it ever got stays."""
        if seed.identity not in self.roles:
            self.roles[seed.identity] = role
            append_line(self.path, {"question": seed.identity, "role": role, "leaf": leaf, "text": seed.question})


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
        newcomers = sorted(
            (seed for seed in members if seed.identity not in ledger.roles),
            key=lambda seed: digest([random_seed, seed.identity]),
        )
        for seed in newcomers:
            role: Role = "held_out" if held < wanted else "used"
            held += role == "held_out"
            ledger.assign(seed, leaf.key, role)
    used = [seed for seed in leaf.seeds if ledger.roles[seed.identity] == "used"]
    return used, [seed for seed in leaf.seeds if ledger.roles[seed.identity] == "held_out"]


def question_words(text: str) -> frozenset[str]:
    """A question's content words, lower-case, by which questions are compared."""
    words = re.findall(r"\w+", text.casefold())
    return frozenset(words) - _STOP_WORDS or frozenset(words)


def similarity(one: frozenset[str], other: frozenset[str]) -> float:
    """Jaccard similarity of two word sets."""
    return len(one & other) / len(one | other) if one or other else 1.0


@dataclass(frozen=True)
class KnownQuestion:
    """A held-out question prepared for comparison."""

    question: str
    context: str
    words: frozenset[str]


class LeakDetector:
    """Finds questions that are, or nearly are, held-out ones.

    Compared is the question's text, never the document, which rightly holds the answers. Where a held-out question
    rests on a context, as in a grounded skill, a question leaks only together with its context.
    """

    def __init__(self, held_out: Iterable[tuple[str, str | None]]) -> None:
        self._known = [
            KnownQuestion(question, " ".join((context or "").casefold().split()), question_words(question))
            for question, context in held_out
        ]
        self._holding: dict[str, set[int]] = defaultdict(set)
        for index, known in enumerate(self._known):
            for word in known.words:
                self._holding[word].add(index)

    def leak(self, question: str, context: str | None = None) -> str | None:
        """The held-out question that `question` repeats, None if it repeats none."""
        words = question_words(question)
        here = " ".join((context or "").casefold().split())
        candidates = set().union(*(self._holding.get(word, set()) for word in words))
        for index in sorted(candidates):
            known = self._known[index]
            if known.context and here and known.context != here:
                continue
            if similarity(words, known.words) >= SAME_QUESTION:
                return known.question
        return None
