"""Report a home's status from its files alone: which leaves are stale, whether a retune has anything to do, a summary."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypedDict

from lab_pipeline.config.settings import Settings, load_settings
from lab_pipeline.core.evaluation import Measurement
from lab_pipeline.core.home import Home
from lab_pipeline.core.verdict import Told
from lab_pipeline.datasets.catalog import build_catalog
from lab_pipeline.datasets.exam import exam_questions
from lab_pipeline.datasets.general import load_general
from lab_pipeline.datasets.heldout_questions import build_heldout
from lab_pipeline.evaluation.evaluate import last_evaluation, nothing_changed, retune_inputs
from lab_pipeline.instructions.plan import LeafPlan, find_stale_leaves, leaf_failure, leaf_state, plan_leaves
from lab_pipeline.models.base_model import base_identity
from lab_pipeline.registry.champion import current_champion
from lab_pipeline.reports.doctor import examine_settings, missing_keys
from lab_pipeline.taxonomy.holdout import withheld_questions
from lab_pipeline.taxonomy.snapshot import Snapshot, current_snapshot
from lab_pipeline.taxonomy.withdrawals import withdrawals
from lab_pipeline.teacher.choose import teacher_identities
from lab_pipeline.teacher.spending import total
from lab_pipeline.training.choice import choose_recipe


@dataclass
class HomeStatus:
    """What a home's leaves and model need, as of one moment: which leaves are stale, whether a retune has anything to do."""

    snapshot: Snapshot
    plans: dict[str, LeafPlan]
    stale: list[str]
    """Keys of the stale leaves, sorted."""
    trainable: bool
    """Whether there is something to train on: a leaf in use has rows, or needs none because no rows are to be generated."""
    inputs: str
    """Fingerprint of all that the outcome of a retune depends on."""
    unchanged: bool
    """Whether the last candidate was evaluated on these inputs and its verdict carried out."""

    @classmethod
    def of(cls, home: Home, settings: Settings) -> Self:
        """Compute the status from the settings and the home's files; a snapshot must exist. Nothing is written or fetched."""
        snapshot = current_snapshot(home)
        plans = plan_leaves(home, snapshot, settings, *teacher_identities(settings))
        catalog = build_catalog(home, snapshot, plans, settings.mixing.generated)
        general = load_general(settings.general)
        heldout = build_heldout(
            catalog, snapshot, general.questions, withheld_questions(home), exam_questions(home, catalog.in_use)
        )
        recipe = choose_recipe(home, settings).recipe
        inputs = retune_inputs(catalog, heldout["digest"], general, base_identity(settings), recipe, settings)
        trainable = any(entry["rows"] or not entry["curated"] for entry in catalog.in_use)
        return cls(snapshot, plans, find_stale_leaves(home, plans), trainable, inputs, nothing_changed(home, inputs))


class LeafSummary(TypedDict):
    """Status of a leaf. `generated` and `kept` count rows of its last good refresh, `teacher_calls` the calls of this run."""

    kind: str | None
    status: str
    """*current*; *refreshed* in this run; *behind* (stale); *failed* to be refreshed; *quarantined*; *not generated*, as the
    settings say; or *withdrawn*, so that no row is used any more. When stale, failed or quarantined, the rows of the last good
    refresh stay in use."""
    flow: str | None
    generated: int
    kept: int
    teacher_calls: int
    problems: list[str]


def leaf_summary(
    home: Home, snapshot: Snapshot, plans: dict[str, LeafPlan], refreshed: Collection[str]
) -> dict[str, LeafSummary]:
    """Summarise each leaf of a snapshot, by key.

    Args:
        plans: plans of the usable leaves for which rows are to be generated.
        refreshed: keys of the leaves that this run refreshed or tried to refresh.
    """
    leaves: dict[str, LeafSummary] = {}
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
        shortfall = [state.shortfall] if state and current and state.shortfall else []
        problems = snapshot.problems[leaf] + shortfall + ([failure.error] if failure else [])
        if leaf in withdrawn:
            problems = [str(withdrawn[leaf])]
        last = state if current else failure
        calls = total(last.spent.values()).calls if last else 0
        leaves[leaf] = {
            "kind": row["kind"],
            "status": status,
            "flow": plans[leaf].flow.name if leaf in plans else None,
            "generated": state.funnel["generated"] if state else 0,
            "kept": state.funnel["kept"] if state else 0,
            "teacher_calls": calls if leaf in refreshed else 0,
            "problems": problems,
        }
    return leaves


def summary(
    home: Home, status: HomeStatus, refreshed: Collection[str], steps: int, seconds: Mapping[str, float], peak: int
) -> dict[str, Any]:
    """Summarise a retune as JSON: all leaves, the last evaluation's losses and verdict, the champion, and what the run cost.

    Without an evaluation or a champion, their values are None.

    Args:
        refreshed: keys of the leaves that this run refreshed or tried to refresh.
        steps: training steps of this run.
        seconds: time taken, by stage.
        peak: peak resident memory in MiB.
    """
    leaves = leaf_summary(home, status.snapshot, status.plans, refreshed)
    evaluation = last_evaluation(home)
    champion = current_champion(home)
    general: Mapping[str, object] = {**evaluation["general"]} if evaluation else {}
    return {
        "home": str(home.root),
        "leaves": leaves,
        "teacher_calls": sum(leaf["teacher_calls"] for leaf in leaves.values()),
        "training_steps": steps,
        "nothing_changed": status.unchanged,
        "heldout": evaluation["heldout"] if evaluation else None,
        "general": {name: general[name] for name in Measurement.__annotations__} if evaluation else None,
        "promoted": evaluation["verdict"]["promoted"] if evaluation else False,
        "verdict": Told(evaluation).sentence if evaluation else None,
        "next": Told(evaluation).next if evaluation else None,
        "reason": evaluation["verdict"]["reason"] if evaluation else None,
        "report": evaluation["report"] if evaluation else None,
        "champion": {"id": champion.id, "folder": str(champion.model)} if champion else None,
        "seconds": {stage: round(taken, 1) for stage, taken in seconds.items()},
        "peak_rss_mib": peak,
    }


def status_report(home: Home) -> dict[str, Any]:
    """Return the `summary` of the home as it is now, as of a run that did nothing; `behind` lists the stale leaves, and `wrong`
    says for what a retune would be refused, by what was checked."""
    settings = load_settings(home.settings_file)
    status = HomeStatus.of(home, settings)
    findings = examine_settings(home, settings, ask=False)
    wrong = {finding.name: finding.message for finding in findings if not finding.passed}
    wrong |= {f"key {name}": "this environment variable is not set" for name in missing_keys(settings)}
    if not status.trainable and not status.stale:
        wrong["rows"] = "no leaf has a row to train on; the problems of the leaves say why"
    return {**summary(home, status, (), 0, {}, 0), "behind": status.stale, "wrong": wrong}
