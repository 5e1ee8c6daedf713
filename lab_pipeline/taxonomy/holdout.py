"""Which seed questions are kept for the test, for ever.

A ledger remembers for every question ever seen whether it was *held out* or *used*. A question keeps its role through
edits, moves and deletions, so a question that a model was trained on never becomes a test, nor the other way round.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq

from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import append_line, digest, read_lines
from lab_pipeline.taxonomy.leaf import Leaf, Seed
from lab_pipeline.text.leaks import LeakDetector

Role = Literal["held_out", "used", "set_aside"]
"""*set_aside*: neither shown nor asked, for it resembles a question of either role."""

MINIMUM_SEEDS = 3
"""A leaf with fewer seeds holds none out: it cannot spare one."""


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
