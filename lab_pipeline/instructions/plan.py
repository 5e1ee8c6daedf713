"""What each leaf should be made from, what it was made from last, and which leaves are behind.

Fingerprints are chained: generate (content, flow prompts, teacher) -> judge (+ judge prompts, judge) -> curate (+ thresholds,
`CURATION_VERSION`, people's reviews). So a changed threshold or a banned row curates again only, and a changed judge judges
again only. A judge between two stages is part of generating: when it changes, replies come from the journal, and only rows
that it newly accepts cost calls. Where a flow has a threshold for grounding, that is measured beside judging (generate ->
ground (+ base model) -> curate), once for all thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from lab_pipeline.config.settings import SensorSettings, Settings
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import GENERATED_SCHEMA
from lab_pipeline.core.storage import digest, read_json
from lab_pipeline.curation.rules import no_reply
from lab_pipeline.curation.version import CURATION_VERSION
from lab_pipeline.flows.choose import flows_of_leaves
from lab_pipeline.flows.flow import Flow
from lab_pipeline.models.base_model import model_identity
from lab_pipeline.models.packing import MEASURE
from lab_pipeline.taxonomy.reviews import Review, reviews_in_force
from lab_pipeline.taxonomy.snapshot import Snapshot
from lab_pipeline.taxonomy.withdrawals import withdrawals

Table = Literal["generated", "judged", "curated", "rejected"]


@dataclass(frozen=True)
class LeafPlan:
    """What a leaf's tables should be made from, as fingerprints."""

    leaf: str
    source: str
    flow: Flow
    generated: str
    judged: str
    curated: str
    reviews: list[Review]
    grounded: str | None
    """None where the flow has no threshold for grounding."""

    @property
    def recipe(self) -> dict[str, Any]:
        """The flow as lineage names it, with the hash of each of its prompts."""
        prompts = {name: digest(prompt) for name, prompt in self.flow.prompts.items()}
        return {"flow": self.flow.name, "version": self.flow.file.version, "prompts": prompts}

    def path(self, home: Home, table: Table) -> Path:
        fingerprint = {"generated": self.generated, "judged": self.judged}.get(table, self.curated)
        return home.leaf(self.leaf) / f"{table}-{fingerprint}.parquet"


@dataclass(frozen=True)
class LeafState:
    """The last good tables of a leaf, and what they cost. Stored as `state.json`."""

    leaf: str
    kind: str
    source: str
    generated: str
    judged: str
    curated: str
    funnel: dict[str, int]
    teacher_calls: int
    refreshed_at: str


def plan_leaves(home: Home, snapshot: Snapshot, settings: Settings, teacher: str, judge: str) -> dict[str, LeafPlan]:
    """The plan of every usable leaf, by key; `teacher` and `judge` are the models' identities. None has one where the settings
    say that nothing is generated.

    Raises:
        FlowError: a flow named in the settings cannot be used.
        LabError: the home's `reviews.yaml` is wrong.
        ModelError: grounding is wanted and the base model is not there.
    """
    if not settings.mixing.generated:
        return {}
    reviews = reviews_in_force(home, snapshot.reviews)
    kinds = {row["leaf"]: row["kind"] for row in snapshot.rows if row["leaf"] in snapshot.usable}
    flows = flows_of_leaves(settings, kinds)
    plans = {}
    for leaf, source in snapshot.usable.items():
        flow = flows[leaf]
        asked = [teacher, judge] if flow.judges(early=True) else [teacher]
        generated = digest([source, flow.generation_digest, asked, settings.seed, GENERATED_SCHEMA.names])
        judged = digest([generated, flow.judging_digest, judge])
        wanted = flow.file.rules.grounding is not None
        grounded = digest([generated, model_identity(settings.base_model), MEASURE]) if wanted else None
        decided = reviews.get(leaf, [])
        said = [[review.model_dump(mode="json") for review in decided]] if decided else []
        curated = digest([judged, grounded, flow.curation_digest, CURATION_VERSION, *said])
        plans[leaf] = LeafPlan(leaf, source, flow, generated, judged, curated, decided, grounded)
    return plans


def leaf_state(home: Home, leaf: str) -> LeafState | None:
    path = home.leaf(leaf) / "state.json"
    return LeafState(**read_json(path)) if path.exists() else None


def provenance_file(home: Home, leaf: str, curated: str) -> Path:
    """What a curated table was made from: flow, hashes of its prompts, frozen source, teacher and judge. For lineage."""
    return home.leaf(leaf) / f"made-{curated}.json"


def leaf_failure(home: Home, plan: LeafPlan) -> dict[str, Any] | None:
    """The last failure to carry out this plan, with `attempts`, `error` and `failed_at`, unless it succeeded since."""
    path = home.leaf(plan.leaf) / "failure.json"
    failure = read_json(path) if path.exists() else None
    return failure if failure and failure["plan"] == plan.curated else None


def stale_leaves_of(home: Home, plans: dict[str, LeafPlan]) -> list[str]:
    """Leaves whose last good tables are not what the plan asks for, or lack rows for which the teacher gave no answer, in key
    order; withdrawn ones are left alone."""
    behind = []
    withdrawn = withdrawals(home)
    for leaf, plan in sorted(plans.items()):
        if leaf in withdrawn:
            continue
        state = leaf_state(home, leaf)
        if state is None or state.curated != plan.curated or state.funnel.get(no_reply.__name__):
            behind.append(leaf)
    return behind


@dataclass(frozen=True)
class Backlog:
    """The leaves that are behind, by what shall become of them."""

    due: list[str]
    """To be refreshed now."""
    waiting: dict[str, float]
    """Failed, with the seconds until they are tried again."""
    left: dict[str, str]
    """Failed too often, with the last error: left to a person, until their plan changes."""

    def __str__(self) -> str:
        parts = [f"{len(self.due)} to refresh"] if self.due else []
        parts += [f"{leaf}: failed, tried again in {seconds:.0f} s" for leaf, seconds in sorted(self.waiting.items())]
        parts += [f"{leaf}: needs attention: {error}" for leaf, error in sorted(self.left.items())]
        return "; ".join(parts) or "all leaves are current"


def backlog(home: Home, plans: dict[str, LeafPlan], policy: SensorSettings, now: datetime) -> Backlog:
    """What is behind, and how each leaf that failed waits: `policy.retry_seconds`, doubled after each further failure."""
    found = Backlog([], {}, {})
    for leaf in stale_leaves_of(home, plans):
        failure = leaf_failure(home, plans[leaf])
        if failure is None:
            found.due.append(leaf)
        elif failure["attempts"] >= policy.attempts:
            found.left[leaf] = failure["error"]
        else:
            since = (now - datetime.fromisoformat(failure["failed_at"])).total_seconds()
            wait = policy.retry_seconds * 2 ** (failure["attempts"] - 1)
            if 0 <= since < wait:  # a clock that was set back makes nothing wait
                found.waiting[leaf] = wait - since
            else:
                found.due.append(leaf)
    return found
