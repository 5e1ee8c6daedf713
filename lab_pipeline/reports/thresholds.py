"""Tell what another threshold of a flow would change: which of the stored rows would be kept or rejected.

No model is asked and nothing is written. Judges' scores are stored with the rows, and rules are run by curation itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from lab_pipeline.config.settings import Settings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.formats import did_you_mean
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import CuratedRow, FrozenLeaf, JudgedRow, RejectedRow
from lab_pipeline.core.storage import read_json, read_rows
from lab_pipeline.core.validation import validation_problems
from lab_pipeline.curation.curate import BANNED, Curated, Curation
from lab_pipeline.curation.profile import profile
from lab_pipeline.flows.flow import Flow, Judge, Rule
from lab_pipeline.instructions.judge_calibration import separation
from lab_pipeline.instructions.plan import LeafPlan, LeafState, plan_leaves
from lab_pipeline.reports.inspection import matching_leaves
from lab_pipeline.taxonomy.snapshot import current_snapshot
from lab_pipeline.teacher.choose import teacher_identities


@dataclass
class WhatIf:
    """What another value of a threshold would change in the leaves whose flow has this threshold."""

    threshold: str
    value: str
    present: set[str] = field(default_factory=set)
    """Values in the flows of these leaves."""
    leaves: int = 0
    rows: int = 0
    """Number of stored rows of these leaves, kept or rejected."""
    kept_now: int = 0
    kept_then: int = 0
    gained: list[CuratedRow] = field(default_factory=list)
    """Rows that would be kept."""
    lost: list[RejectedRow] = field(default_factory=list)
    """Rows that would be rejected, by what and why."""
    uncounted: int = 0
    """Number of leaves left out because there are too many rows."""


def thresholds(flow: Flow) -> dict[str, str]:
    """Return the thresholds of a flow, by name, each with its value as `what_if` takes it."""
    found = {f"judge {judge.name}": f"{judge.minimum:g}" for judge in flow.file.judges if judge.gates}
    for rule in flow.file.rules:
        if rule.minimum is not None and not rule.advises:
            found[rule.rule] = f"{rule.minimum:g}"
        for column in ("question", "answer"):
            if bounds := getattr(rule, column):
                found[f"{rule.rule}.{column}"] = f"{bounds[0]}-{bounds[1]}"
    return found


def with_threshold(flow: Flow, name: str, value: str) -> Flow:
    """Return a copy of a flow in which one of its `thresholds` has another value.

    Raises:
        LabError: the value is not one that a `flow.yaml` may have.
    """
    try:
        if name.startswith("judge "):
            judges = tuple(
                Judge.model_validate({**judge.model_dump(), "minimum": value}) if f"judge {judge.name}" == name else judge
                for judge in flow.file.judges
            )
            return replace(flow, file=flow.file.model_copy(update={"judges": judges}))
        rule_name, _, column = name.partition(".")
        bounds = re.fullmatch(r"(\d+)-(\d+)", value)
        if column and not bounds:
            raise LabError(f"{name}: expected the least and the most words, such as 3-100, found {value!r:.40}")
        change = {column: bounds.groups()} if bounds else {"minimum": value}
        rules = tuple(
            Rule.model_validate({**rule.model_dump(), **change}) if rule.rule == rule_name else rule for rule in flow.file.rules
        )
        return replace(flow, file=flow.file.model_copy(update={"rules": rules}))
    except ValidationError as error:
        raise LabError(f"{name}: {validation_problems(error)[0].partition(': ')[2]}") from None


def known_thresholds(home: Home, settings: Settings, leaf: str = "") -> dict[str, str]:
    """Return the thresholds of the flows of refreshed leaves, each with its values as text; the leaves as in `what_if`."""
    found: dict[str, set[str]] = {}
    for _, plan in _planned(home, settings, leaf):
        for name, value in thresholds(plan.flow).items():
            found.setdefault(name, set()).add(value)
    return {name: " or ".join(sorted(values)) for name, values in sorted(found.items())}


def what_if(
    home: Home,
    settings: Settings,
    leaf: str,
    change: tuple[str, str],
    most_rows: int | None = None,
    done: Callable[[], None] = lambda: None,
) -> WhatIf:
    """Find out what would change if a threshold of the flows had another value.

    Args:
        leaf: key of a leaf, of a branch, or '' for all leaves.
        change: name of the threshold, and its value.
        most_rows: leaves are left out once this many rows were looked at; None means no limit.
        done: called after each leaf.

    Raises:
        LabError: no flow of these leaves has such a threshold, or the value is not allowed.
    """
    name, value = change
    found = WhatIf(name, value)
    known: set[str] = set()
    for state, plan in _planned(home, settings, leaf):
        present = thresholds(plan.flow)
        known |= present.keys()
        if name not in present:
            done()
            continue
        changed = with_threshold(plan.flow, name, value)
        if most_rows is not None and found.leaves and found.rows + state.funnel["generated"] > most_rows:
            found.uncounted += 1
            continue
        found.present.add(present[name])
        _count(home, settings, state, plan, changed, found)
        done()
    if not found.leaves and name not in known:
        raise LabError(f"{name}: no such threshold; {did_you_mean(name, known)}")
    return found


def _planned(home: Home, settings: Settings, leaf: str) -> Iterable[tuple[LeafState, LeafPlan]]:
    """Yield the last refresh and the present plan of each leaf that has both."""
    plans = plan_leaves(home, current_snapshot(home), settings, *teacher_identities(settings))
    return [(state, plans[state.leaf]) for state in matching_leaves(home, leaf) if state.leaf in plans]


def _count(home: Home, settings: Settings, state: LeafState, plan: LeafPlan, changed: Flow, found: WhatIf) -> None:
    """Curate a leaf's judged rows by the changed flow, and add to `found` what is not as it is now."""
    source: FrozenLeaf = read_json(home.leaf_source(state.source))
    leaf, judge_model = profile(source), teacher_identities(settings)[1]

    def curated(flow: Flow, rows: list[JudgedRow]) -> Curated:
        return Curation(leaf, _trusting(home, flow, judge_model), plan.reviews).split(rows)

    rows: list[JudgedRow] = read_rows(home.leaf(state.leaf) / f"judged-{state.judged}.parquet")
    if state.curated == plan.curated:
        folder = home.leaf(state.leaf)
        kept: Any = read_rows(folder / f"curated-{state.curated}.parquet")
        rejected: Any = read_rows(folder / f"rejected-{state.curated}.parquet")
    else:  # the flow or the reviews changed since: what they make of the rows now is what another value is compared with
        kept, rejected = curated(plan.flow, rows)
    before = {row["id"] for row in kept}
    # What another rule rejects stays rejected, whatever this one says; only who repeats whom may change.
    open_again = {found.threshold.partition(".")[0], "duplicate", BANNED}
    concerned = before | {row["id"] for row in rejected if row["rule"] in open_again}
    kept_then, rejected_then = curated(changed, [row for row in rows if row["id"] in concerned])
    found.leaves += 1
    found.rows += len(rows)
    found.kept_now += len(before)
    found.kept_then += len(kept_then)
    found.gained += [row for row in kept_then if row["id"] not in before]
    found.lost += [row for row in rejected_then if row["id"] in before]


def _trusting(home: Home, flow: Flow, model: str) -> Flow:
    """Return a copy of a flow in which those judges gate that were seen to separate their known rows."""
    gating = [judge for judge in flow.file.judges if judge.gates]
    seen = {judge.name: separation(home, flow, judge, model) for judge in gating}
    return flow.trusting([name for name, each in seen.items() if each and each["separates"]])
