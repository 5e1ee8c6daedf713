"""Show what a refresh of the stale leaves would take now: calls, tokens, money and time."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lab_pipeline.config.settings import Settings
from lab_pipeline.core.home import Home
from lab_pipeline.instructions.bill import Bill, Cost, bill
from lab_pipeline.instructions.plan import find_stale_leaves, plan_leaves
from lab_pipeline.taxonomy.snapshot import current_snapshot
from lab_pipeline.teacher.choose import teacher_identities


def estimate(home: Home, settings: Settings) -> Bill:
    """Return the bill of a refresh of the current snapshot's stale leaves. No model is asked.

    Raises:
        NotMaterialized: There is no snapshot yet.
        LabError: The settings name something that cannot be used.
    """
    models = teacher_identities(settings)
    plans = plan_leaves(home, current_snapshot(home), settings, *models)
    return bill(home, settings, [plans[leaf] for leaf in find_stale_leaves(home, plans)], *models)


def described(expected: Bill) -> dict[str, Any]:
    """Return an estimate as JSON: what each leaf takes, judges about their known rows, all together, and the seconds."""
    return {
        "leaves": {leaf: asdict(cost) for leaf, cost in expected.leaves.items()},
        "known_rows": asdict(expected.known_rows),
        "total": asdict(expected.total),
        "seconds": expected.seconds,
    }


def estimate_text(expected: Bill) -> str:
    """Return an estimate as a table, the dearest leaf first, with the sum and a sentence below."""
    if not expected.leaves:
        return "No leaf is stale: a refresh would make no call."
    lines = [f"{'calls':>10} {'prompt tokens':>15} {'completion tokens':>18} {'money':>10}  leaf"]
    ranked = sorted(expected.leaves.items(), key=lambda each: (-each[1].calls, each[0]))
    if expected.known_rows.calls:
        ranked.append(("judges: known rows, once", expected.known_rows))
    for name, cost in [*ranked, ("all", expected.total)]:
        lines.append(f"{_numbers(cost)}  {name}")
    return "\n".join([*lines, "", f"A refresh would take {expected}."])


def _numbers(cost: Cost) -> str:
    return f"{cost.calls:>10,} {cost.prompt_tokens:>15,} {cost.completion_tokens:>18,} {cost.money:>10.2f}"
