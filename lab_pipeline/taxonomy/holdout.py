"""Split seed questions into those used for generation and those held out for evaluation, permanently.

A ledger records the role of every question ever seen: *held out* or *used*. A question keeps its role through edits, moves
and deletions, so a question that a model was trained on is never evaluated on, and vice versa.
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
"""*set_aside*: excluded from both, because it resembles a used and a held-out question."""

MINIMUM_SEEDS = 3
"""A leaf with fewer seeds holds none out."""


def taught_questions(home: Home) -> LeakDetector:
    """Return the prompts of all data sets ever built in this home."""
    prompts = set()
    for path in home.mixed_datasets():
        rows = pq.read_table(path, columns=["messages"], filters=[("source", "!=", "document")])
        prompts |= {turn["content"] for messages in rows["messages"].to_pylist() for turn in messages if turn["role"] == "user"}
    return LeakDetector(sorted(prompts))


def withheld_questions(home: Home) -> list[str]:
    """Return the prompts of all questions ever held out."""
    return sorted({entry["asked"] for entry in read_lines(home.heldout_ledger) if entry["role"] == "held_out"})


class Ledger:
    """The append-only record of roles, `ledger.jsonl`.

    `taught` loads the prompts of training rows when they are first needed: a new seed that repeats a question which the
    teacher already generated cannot be held out.
    """

    def __init__(self, path: Path, taught: Callable[[], LeakDetector] = LeakDetector) -> None:
        self.path = path
        self._taught = functools.cache(taught)
        self.roles: dict[str, Role] = {}
        self._prompts: dict[Role, LeakDetector] = defaultdict(LeakDetector)
        for entry in read_lines(path):
            self._enter(entry["question"], entry["role"], entry["asked"])

    def _enter(self, identity: str, role: Role, asked: str) -> None:
        if identity not in self.roles:
            self.roles[identity] = role
            self._prompts[role].add(asked)

    def assign(self, seed: Seed, leaf: str, hold_out: bool) -> Role:
        """Give a new question its role: held out if `hold_out`, unless it nearly repeats a question that already has a role.

        A question like a used or taught one is used, a question like a held-out one is held out.
        """
        like_used = self._prompts["used"].leak(seed.asked) or self._taught().leak(seed.asked)
        like_held = self._prompts["held_out"].leak(seed.asked)
        role: Role = "held_out" if hold_out else "used"
        if like_used and like_held:
            role = "set_aside"
        elif like_used or like_held:
            role = "used" if like_used else "held_out"
        append_line(self.path, {"question": seed.identity, "role": role, "leaf": leaf, "asked": seed.asked})
        self._enter(seed.identity, role, seed.asked)
        return role


def split_seeds(leaf: Leaf, ledger: Ledger, random_seed: int) -> tuple[list[Seed], list[Seed]]:
    """Split a leaf's seeds into (used, held out), and record the roles of new ones in the ledger.

    One of three questions of each knowledge context is held out, and one of five seeds of a skill. New questions are chosen
    by hash of the question and `random_seed`. Those that repeat each other share a role, and are held out only if most of the
    leaf's seeds stay in use, because those are needed for generation.
    """

    def group(seed: Seed) -> int:
        return seed.group if leaf.kind == "knowledge" else 0

    sizes = Counter(map(group, leaf.seeds))
    wanted = {each: size // 3 if leaf.kind == "knowledge" else max(1, size // 5) for each, size in sizes.items()}
    limit = (len(leaf.seeds) - 1) // 2 if len(leaf.seeds) >= MINIMUM_SEEDS else 0
    held = Counter(group(seed) for seed in leaf.seeds if ledger.roles.get(seed.identity) == "held_out")
    new = [seed for seed in leaf.seeds if seed.identity not in ledger.roles]
    new.sort(key=lambda seed: digest([random_seed, seed.identity]))
    for repeats in sorted(_grouped(new), key=len):
        first = group(repeats[0])
        hold_out = held[first] < wanted[first] and held.total() + len(repeats) <= limit
        for seed in repeats:
            if seed.identity not in ledger.roles:
                ledger.assign(seed, leaf.key, hold_out)
            held[group(seed)] += ledger.roles[seed.identity] == "held_out"
    used = [seed for seed in leaf.seeds if ledger.roles[seed.identity] == "used"]
    return used, [seed for seed in leaf.seeds if ledger.roles[seed.identity] == "held_out"]


def _grouped(seeds: list[Seed]) -> list[list[Seed]]:
    """Group seeds that repeat each other, directly or through others; most groups have one seed."""
    detector = LeakDetector(seed.asked for seed in seeds)
    group_of = {seed.asked: [seed.asked] for seed in seeds}
    for seed in seeds:
        for repeated in detector.leaks(seed.asked):
            group, other = group_of[seed.asked], group_of[repeated]
            if group is not other:
                group += other
                group_of.update(dict.fromkeys(other, group))
    groups: dict[int, list[Seed]] = defaultdict(list)
    for seed in seeds:
        groups[id(group_of[seed.asked])].append(seed)
    return list(groups.values())
