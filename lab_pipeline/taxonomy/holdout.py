"""Split a leaf's seeds permanently: some are used for generation, the others held out for evaluation.

A ledger records the role of every seed question ever seen. A question keeps its role even if its leaf is edited or moved, or
the seed deleted and written again. So no model is evaluated on a question that it was trained on, and vice versa.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import pyarrow.parquet as pq

from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import add_line, digest, flush, read_lines
from lab_pipeline.taxonomy.leaf import Leaf, Seed
from lab_pipeline.text.leaks import LeakDetector, may_repeat

Role = Literal["held_out", "used", "set_aside"]
"""What a seed question is for: *held_out* to test models, *used* to generate from, or *set_aside*, which is neither, because it
resembles both a used and a held-out question."""

MINIMUM_SEEDS = 3
"""No seed is held out of a leaf with fewer seeds."""
_FEW = 100
"""Up to this number of new seeds, each is compared with the known questions without an index of them."""


def taught_questions(home: Home) -> LeakDetector:
    """Return a detector of texts that repeat a prompt of any training data set ever mixed in this home. Prompts of document
    rows are left out, because they are made from headings."""
    prompts = set()
    for path in home.mixed_datasets():
        rows = pq.read_table(path, columns=["messages"], filters=[("source", "!=", "document")])
        prompts |= {turn["content"] for messages in rows["messages"].to_pylist() for turn in messages if turn["role"] == "user"}
    return LeakDetector(sorted(prompts))


def withheld_questions(home: Home) -> list[str]:
    """Return the prompts of all questions ever held out in this home, sorted, also of seeds and leaves that are gone."""
    return sorted({entry["asked"] for entry in read_lines(home.heldout_ledger) if entry["role"] == "held_out"})


class Ledger:
    """The append-only record of each seed question's role, kept in the file at `path`.

    `taught` is called when the prompts of training rows are first needed: a new seed that repeats a question on which models
    were already trained cannot be held out.
    """

    def __init__(self, path: Path, taught: Callable[[], LeakDetector] = LeakDetector) -> None:
        self.path = path
        self._taught = functools.cache(taught)
        self.roles: dict[str, Role] = {}
        self._asked: dict[Role, list[str]] = defaultdict(list)
        self._new = 0
        for entry in read_lines(path):
            if entry["question"] not in self.roles:
                self.roles[entry["question"]] = entry["role"]
                self._asked[entry["role"]].append(entry["asked"])

    @functools.cached_property
    def _prompts(self) -> dict[Role, LeakDetector]:
        """The prompts of each role, for more than `_FEW` new seeds; most snapshots have none, or those of a leaf or two."""
        return {role: LeakDetector(self._asked[role]) for role in get_args(Role)}

    def _repeats(self, role: Role, asked: str) -> bool:
        if self._new > _FEW:
            return self._prompts[role].leak(asked) is not None
        return LeakDetector(may_repeat(asked, self._asked[role])).leak(asked) is not None

    def assign(self, seed: Seed, leaf: str, hold_out: bool) -> Role:
        """Give a seed that is not yet in the ledger its role, record it, and return the role.

        A seed that nearly repeats a used question, or a prompt of a training data set, is used. A seed that nearly repeats a
        held-out question is held out. A seed that does both is set aside. Only for other seeds does `hold_out` decide.
        """
        self._new += 1
        like_used = self._repeats("used", seed.asked) or self._taught().leak(seed.asked)
        like_held = self._repeats("held_out", seed.asked)
        role: Role = "held_out" if hold_out else "used"
        if like_used and like_held:
            role = "set_aside"
        elif like_used or like_held:
            role = "used" if like_used else "held_out"
        add_line(self.path, {"question": seed.identity, "role": role, "leaf": leaf, "asked": seed.asked})
        self.roles[seed.identity] = role
        self._asked[role].append(seed.asked)
        if self._new > _FEW:
            self._prompts[role].add(seed.asked)
        return role

    def flush(self) -> None:
        """Wait until all roles are on disk, so that no snapshot outlives them."""
        if self.path.exists():
            flush(self.path)


def split_seeds(leaf: Leaf, ledger: Ledger, random_seed: int) -> tuple[list[Seed], list[Seed]]:
    """Split a leaf's seeds into (used, held out), and record the roles of new seeds in the ledger.

    A seed with the role *set_aside* (see `Role`) is in neither list. A seed that is already in the ledger keeps its role, and
    a new seed that resembles a known question or a training prompt gets its role from that (see `Ledger.assign`).

    Of the other seeds, a third of each knowledge context, rounded down, is held out. Of a skill it is a fifth, rounded down,
    but at least one. They are chosen by a hash of `random_seed` and the question; seeds that repeat each other are chosen
    together, the smallest groups first. This choice never makes half of the leaf's seeds or more held out, and it holds out
    none of a leaf with fewer than `MINIMUM_SEEDS`.
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
    """Group seeds that repeat each other, directly or through other seeds; most groups have one seed."""
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
