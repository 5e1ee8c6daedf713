"""A home with one leaf of each kind and flows of its own, refreshed by scripted models that can be counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from lab_pipeline.config.settings import Settings
from lab_pipeline.core.home import Home
from lab_pipeline.instructions.plan import LeafFailure, LeafPlan, LeafState, Table, plan_leaves
from lab_pipeline.instructions.refresh import refresh_leaves
from lab_pipeline.taxonomy.snapshot import Snapshot, take_snapshot
from lab_pipeline.teacher.protocol import Reply, Request, TeacherError
from lab_pipeline.teacher.spending import Spent, total
from lab_pipeline_tests.builders import FREEFORM, GROUNDED, KNOWLEDGE
from lab_pipeline_tests.scripted_teacher import ScriptedTeacher, copying

TABLES: tuple[Table, ...] = get_args(Table)


@dataclass
class Outcome:
    states: dict[str, LeafState] = field(default_factory=dict)
    failures: dict[str, LeafFailure] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)


@dataclass
class Lab:
    """A home with a small taxonomy of one leaf of each kind; `flow` is the knowledge leaf's own flow."""

    home: Home
    settings: Settings
    taxonomy: Path
    flow: Path
    teacher: ScriptedTeacher
    judge: ScriptedTeacher
    snapshot: Snapshot

    def plans(self) -> dict[str, LeafPlan]:
        return plan_leaves(self.home, self.snapshot, self.settings, self.teacher.identity, self.judge.identity)

    def look_again(self) -> None:
        self.snapshot = take_snapshot(self.home, self.settings)

    def elsewhere(self, root: Path, **others: Any) -> Lab:
        """The same lab with an empty home."""
        other = replace(self, home=Home.open(root), **others)
        other.look_again()
        return other

    def refresh(self, *leaves: str, plans: dict[str, LeafPlan] | None = None) -> Outcome:
        """Refresh these leaves, or all of them."""
        outcome = Outcome()

        def on_done(done: LeafState | LeafFailure) -> None:
            if isinstance(done, LeafState):
                outcome.states[done.leaf] = done
            else:
                outcome.failures[done.leaf] = done

        plans = plans or self.plans()
        wanted = [plan for leaf, plan in plans.items() if not leaves or leaf in leaves]
        refresh_leaves(self.home, wanted, self.settings, self.teacher, self.judge, "commit", outcome.said.append, on_done)
        return outcome

    def calls(self) -> tuple[int, int]:
        """Requests that reached teacher and judge since last asked."""
        counts = len(self.teacher.requests), len(self.judge.requests)
        self.teacher.requests.clear()
        self.judge.requests.clear()
        return counts

    def tables(self, leaf: str) -> dict[str, bytes]:
        plan = self.plans()[leaf]
        return {table: plan.path(self.home, table).read_bytes() for table in TABLES}


def spent(outcome: LeafState | LeafFailure) -> Spent:
    """What a leaf's refresh took, both stages together."""
    return total(outcome.spent.values())


def failing_on(leaf: str) -> Callable[[Request], str | Reply]:
    """Good replies, but none to the requests of one kind of leaf."""
    sign = {KNOWLEDGE: "about a sentence", GROUNDED: "short text for an exercise", FREEFORM: "of the same kind as"}[leaf]

    def script(request: Request) -> str | Reply:
        if sign in request.messages[0].content:
            raise TeacherError("out of paper")
        return copying(request)

    return script
