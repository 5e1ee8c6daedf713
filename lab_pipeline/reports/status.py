"""How a home stands, as its files say: what is behind, whether a retune has anything to do, and the summary of both.

Nothing is run to find out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lab_pipeline.config.recipe import load_recipe
from lab_pipeline.config.settings import Settings, load_settings
from lab_pipeline.core.home import Home
from lab_pipeline.datasets.catalog import build_catalog
from lab_pipeline.datasets.general import load_general
from lab_pipeline.datasets.heldout_questions import build_heldout
from lab_pipeline.evaluation.evaluate import last_evaluation, nothing_changed, retune_inputs
from lab_pipeline.instructions.plan import FailureRecord, LeafPlan, find_stale_leaves, leaf_failure, leaf_state, plan_leaves
from lab_pipeline.models.base_model import model_identity
from lab_pipeline.registry.champion import current_champion
from lab_pipeline.taxonomy.holdout import withheld_questions
from lab_pipeline.taxonomy.snapshot import Snapshot, current_snapshot
from lab_pipeline.taxonomy.withdrawals import withdrawals
from lab_pipeline.teacher.choose import teacher_identities


@dataclass
class HomeStatus:
    """What the home needs."""

    snapshot: Snapshot
    plans: dict[str, LeafPlan]
    behind: list[str]
    trainable: bool
    """Whether a leaf in use has rows, or needs none because nothing is to be generated."""
    inputs: str
    unchanged: bool

    @classmethod
    def of(cls, home: Home, settings: Settings) -> HomeStatus:
        snapshot = current_snapshot(home)
        plans = plan_leaves(home, snapshot, settings, *teacher_identities(settings))
        catalog = build_catalog(home, snapshot, plans, settings.mixing.generated)
        general = load_general(settings.general)
        heldout = build_heldout(catalog, snapshot.rows, general.questions, withheld_questions(home))
        recipe = load_recipe(settings.recipe)
        inputs = retune_inputs(catalog, heldout["digest"], general, model_identity(settings.base_model), recipe, settings)
        trainable = any(entry["rows"] or not entry["curated"] for entry in catalog.in_use)
        return cls(snapshot, plans, find_stale_leaves(home, plans), trainable, inputs, nothing_changed(home, inputs))


def leaf_summary(home: Home, snapshot: Snapshot, plans: dict[str, LeafPlan], refreshed: set[str]) -> dict[str, Any]:
    """Each leaf's kind, status, flow, counts, calls of this run, and problems.

    Status: *current*; *refreshed* in this run; *behind* what its taxonomy folder asks for; *failed* to be refreshed;
    *quarantined*; *not generated* because the settings say so. Rows of the last good state stay in use in the three before the
    last. *withdrawn*: no row is used any more.
    """
    leaves = {}
    withdrawn = withdrawals(home)
    for row in snapshot.rows:
        leaf = row["leaf"]
        state = leaf_state(home, leaf)
        failure = leaf_failure(home, plans[leaf]) if leaf in plans else None
        current = state is not None and leaf in plans and state.curated == plans[leaf].curated
        if leaf in withdrawn:
            status = "withdrawn"
        elif not row["usable"]:
            status = "quarantined"
        elif leaf not in plans:
            status = "not generated"
        elif current:
            status = "refreshed" if leaf in refreshed else "current"
        else:
            status = "failed" if failure else "behind"
        problems = snapshot.problems[leaf] + ([failure["error"]] if failure else [])
        if leaf in withdrawn:
            problems = [str(withdrawn[leaf])]
        leaves[leaf] = {
            "kind": row["kind"],
            "status": status,
            "flow": plans[leaf].flow.name if leaf in plans else None,
            "generated": state.funnel["generated"] if state else 0,
            "kept": state.funnel["kept"] if state else 0,
            "teacher_calls": _calls_now(state, failure, current) if leaf in refreshed else 0,
            "problems": problems,
        }
    return leaves


def _calls_now(state: Any, failure: FailureRecord | None, current: bool) -> int:
    if current:
        return int(state.teacher_calls)
    return int(failure["teacher_calls"]) if failure else 0


def summary(
    home: Home, standing: HomeStatus, refreshed: set[str], steps: int, seconds: dict[str, float], peak: int
) -> dict[str, Any]:
    """What a retune did: `refreshed` leaves, training `steps`, `seconds` by stage, `peak` RSS in MiB; and where it led."""
    leaves = leaf_summary(home, standing.snapshot, standing.plans, refreshed)
    evaluation = last_evaluation(home)
    champion = current_champion(home)
    measured = ("base", "champion", "candidate", "difference", "interval", "questions")
    return {
        "home": str(home.root),
        "leaves": leaves,
        "teacher_calls": sum(leaf["teacher_calls"] for leaf in leaves.values()),
        "training_steps": steps,
        "nothing_changed": standing.unchanged,
        "heldout": evaluation["heldout"] if evaluation else None,
        "general": {key: evaluation["general"][key] for key in measured} if evaluation else None,
        "promoted": evaluation["verdict"]["promoted"] if evaluation else False,
        "reason": evaluation["verdict"]["reason"] if evaluation else None,
        "report": evaluation["report"] if evaluation else None,
        "champion": {"id": champion.id, "folder": str(champion.model)} if champion else None,
        "seconds": {stage: round(taken, 1) for stage, taken in seconds.items()},
        "peak_rss_mib": peak,
    }


def status_report(home: Home) -> dict[str, Any]:
    """How the home stands now, with the keys of the summary."""
    standing = HomeStatus.of(home, load_settings(home.settings_file))
    return {**summary(home, standing, set(), 0, {}, 0), "behind": standing.behind}
