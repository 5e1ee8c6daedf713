"""Choose the rules that hold for a leaf: those of its flow, in their order, that its own seeds keep."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast, get_args

from lab_pipeline.core.rows import JudgedRow, SeedExample
from lab_pipeline.curation import support, wording
from lab_pipeline.curation.duplicates import Duplicates, asked_question
from lab_pipeline.curation.profile import Profile, Reason, Row
from lab_pipeline.flows.flow import Flow, Rule, RuleName

CHECKS: dict[str, Callable[[Row, Profile, Rule], Reason]] = {
    name: check for module in (wording, support) for name, check in vars(module).items() if name in get_args(RuleName)
}
"""The rules of flows by name. Each returns why it rejects a row, or None. `duplicate` is not here: it needs the rows before."""

_FAULTS = (Rule(rule="no_reply"), Rule(rule="incomplete"))
"""The rules for rows that lack a text. They hold for every leaf, even if its seeds have answers without a letter: `[]`."""
_HABIT = 0.2
"""If at least this share of a leaf's seeds breaks a rule, the rule is off for that leaf: one of upstream's minimum of five."""
_SEEDS = 20
"""Number of seeds, the first ones, by which this is judged."""


@dataclass(frozen=True)
class LeafRules:
    """The rules of a flow that hold for a leaf, in order, and the rules that are off for it, each with the reason."""

    on: tuple[Rule, ...]
    off: dict[str, str]

    def broken(self, row: Row, leaf: Profile) -> tuple[tuple[str, str] | None, list[str]]:
        """Return (rule, reason) of the first rule that rejects a row, or None, and what the rules that only advise find."""
        advice: list[str] = []
        for rule in _FAULTS if row["fault"] else self.on:
            if rule.rule in CHECKS and (reason := CHECKS[rule.rule](row, leaf, rule)):
                if not rule.advises:
                    return (rule.rule, reason), advice
                advice.append(f"{rule.rule}: {reason}")
        return None, advice


def seed_as_row(seed: SeedExample, place: int, kind: str) -> JudgedRow:
    """Return the columns that rules and `Duplicates` read, as if a teacher had written a seed of a leaf of this kind.

    Models see a knowledge row without the context that supports it. The id is the seed's `place` in its leaf.
    """
    context = None if kind == "knowledge" else seed["context"]
    shaped = {"id": str(place), "kind": kind, "fault": None, "context": context, "support": seed["context"]}
    return cast(JudgedRow, {**seed, **shaped})


def rules_of(leaf: Profile, flow: Flow) -> LeafRules:
    """Return the rules that hold for a leaf, and those that its own seeds break (see `_HABIT`).

    What seeds do is what the leaf teaches, such as markup, refusals or another language. Each seed is checked as if it were a
    generated row of a leaf that lacks this seed.
    """
    seeds = leaf.seeds[:_SEEDS]
    broken: Counter[str] = Counter()
    earlier = Duplicates()
    for place, seed in enumerate(seeds):
        row = seed_as_row(seed, place, leaf.source["kind"])
        others = leaf.without(place)
        broken.update(rule.rule for rule in flow.file.rules if rule.rule in CHECKS and CHECKS[rule.rule](row, others, rule))
        broken["duplicate"] += earlier.find(question := asked_question(row)) is not None
        earlier.add(question)
    off = {
        rule: f"{count} of {len(seeds)} seed examples break it"
        for rule, count in broken.items()
        if count >= _HABIT * len(seeds)
    }
    return LeafRules(tuple(rule for rule in flow.file.rules if rule.rule not in off), off)
