"""The first page: which model is in use, what the last retune came to, and what needs a person."""

from __future__ import annotations

from collections import Counter
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from lab_pipeline.config.settings import load_settings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.evaluation import Evaluation
from lab_pipeline.core.home import Home
from lab_pipeline.evaluation.evaluate import last_evaluation
from lab_pipeline.instructions.plan import plan_leaves
from lab_pipeline.pages.render import render
from lab_pipeline.registry.champion import current_champion, history
from lab_pipeline.reports.models import share_right
from lab_pipeline.reports.status import LeafSummary, leaf_summary
from lab_pipeline.taxonomy.snapshot import Snapshot, current_snapshot
from lab_pipeline.teacher.choose import teacher_identities

_SHOWN = 10


def overview(request: Request) -> Response:
    """Show the verdict first, then counts, then what needs a person."""
    home: Home = request.app.state.home
    evaluation, champion = last_evaluation(home), current_champion(home)
    snapshot = current_snapshot(home) if home.current_snapshot.exists() else None
    leaves, wrong = summaries(home, snapshot)
    statuses = Counter(leaf["status"] for leaf in leaves.values())
    attention = {key: leaf for key, leaf in leaves.items() if leaf["status"] in ("quarantined", "failed")}
    behind = [key for key, leaf in leaves.items() if leaf["status"] == "behind"]
    return render(
        request,
        "overview.html.jinja",
        snapshot=snapshot,
        champion=champion,
        move=history(home)[-1] if champion else None,
        evaluation=evaluation,
        right=right_answers(evaluation) if evaluation else {},
        statuses=statuses,
        kept=sum(leaf["kept"] for leaf in leaves.values()),
        wrong=wrong,
        attention=dict(list(attention.items())[:_SHOWN]),
        more=max(0, len(attention) - _SHOWN),
        behind=behind,
    )


def summaries(home: Home, snapshot: Snapshot | None) -> tuple[dict[str, LeafSummary], str | None]:
    """Return the state of each leaf by key, and why states may be unknown: the settings, a flow or a file is wrong."""
    if snapshot is None:
        return {}, None
    try:
        settings = load_settings(home.settings_file)
        plans = plan_leaves(home, snapshot, settings, *teacher_identities(settings))
        return leaf_summary(home, snapshot, plans, ()), None
    except LabError as error:
        leaves = leaf_summary(home, snapshot, {}, ())
        for leaf in leaves.values():
            if leaf["status"] == "not generated":
                leaf["status"] = "unknown"
        return leaves, str(error)


def right_answers(measured: Evaluation | dict[str, Any]) -> dict[str, str]:
    """Say for each model of an evaluation how many test questions it answers right in multiple choice, as '12 of 21'."""
    ranks = measured["heldout"].get("ranks") or {}  # evaluations of earlier releases have none
    return {model: share_right(score) for model, score in ranks.items() if score}
