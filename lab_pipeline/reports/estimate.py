"""Estimate what a refresh of the stale leaves would take now: calls, tokens and money."""

from __future__ import annotations

from typing import TypedDict

from lab_pipeline.config.settings import EndpointTeacherSettings, Settings, TeacherSettings
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import FrozenLeaf
from lab_pipeline.core.storage import read_json, read_rows
from lab_pipeline.flows.choose import token_counter
from lab_pipeline.instructions.plan import find_stale_leaves, plan_leaves
from lab_pipeline.instructions.rehearsal import Rehearsed, Rehearser, rehearse
from lab_pipeline.taxonomy.snapshot import current_snapshot
from lab_pipeline.teacher.choose import teacher_identities
from lab_pipeline.teacher.journal import read_journal


class LeafEstimate(TypedDict):
    """What the refresh of one leaf takes beyond what its journal holds; `money` is 0 where the settings state no prices."""

    leaf: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    money: float


def estimate(home: Home, settings: Settings) -> list[LeafEstimate]:
    """Return the estimate of each stale leaf of the current snapshot, by key. No model is asked.

    Left out are the calls by which a new judge shows once that it separates known rows.

    Raises:
        NotMaterialized: There is no snapshot yet.
        LabError: The settings name something that cannot be used.
    """
    teacher, judge = teacher_identities(settings)
    plans = plan_leaves(home, current_snapshot(home), settings, teacher, judge)
    count = token_counter(home, settings)
    found: list[LeafEstimate] = []
    for leaf in find_stale_leaves(home, plans):
        plan = plans[leaf]
        source: FrozenLeaf = read_json(home.leaf_source(plan.source))
        models = Rehearser(teacher, judge, count, dict(read_journal(home.leaf(leaf) / "journal")))
        generated, judged = plan.path(home, "generated"), plan.path(home, "judged")
        costs = (Rehearsed(0, 0, 0), Rehearsed(0, 0, 0))
        if not judged.exists():
            rows = read_rows(generated) if generated.exists() else None
            costs = rehearse(source, plan.flow, settings.seed, models, rows)
        whole = costs[0] + costs[1]
        money = _money(costs[0], settings.teacher) + _money(costs[1], settings.judge or settings.teacher)
        found.append(
            {
                "leaf": leaf,
                "calls": whole.calls,
                "prompt_tokens": whole.prompt_tokens,
                "completion_tokens": whole.completion_tokens,
                "money": round(money, 4),
            }
        )
    return found


def _money(cost: Rehearsed, model: TeacherSettings) -> float:
    if not isinstance(model, EndpointTeacherSettings):
        return 0.0
    return (cost.prompt_tokens * model.prompt_price + cost.completion_tokens * model.completion_price) / 1_000_000


def estimate_text(leaves: list[LeafEstimate]) -> str:
    """Return the estimate as a table, the dearest leaf first, with the sum below."""
    if not leaves:
        return "No leaf is stale: a refresh would make no call."
    lines = [f"{'calls':>10} {'prompt tokens':>15} {'completion tokens':>18} {'money':>10}  leaf"]
    ranked = sorted(leaves, key=lambda each: (-each["calls"], each["leaf"]))
    total: LeafEstimate = {
        "leaf": f"all {len(leaves)}",
        "calls": sum(each["calls"] for each in leaves),
        "prompt_tokens": sum(each["prompt_tokens"] for each in leaves),
        "completion_tokens": sum(each["completion_tokens"] for each in leaves),
        "money": sum(each["money"] for each in leaves),
    }
    for each in [*ranked, total]:
        numbers = f"{each['calls']:>10,} {each['prompt_tokens']:>15,} {each['completion_tokens']:>18,} {each['money']:>10.2f}"
        lines.append(f"{numbers}  {each['leaf']}")
    return "\n".join(lines)
