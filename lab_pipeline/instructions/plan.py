"""Plan what each leaf's tables should be made from, and find the leaves whose tables are stale.

Fingerprints are chained: generate (content, flow prompts, teacher) -> judge (+ judge prompts, judge) -> curate (+ thresholds,
`CURATION_VERSION`, reviews). So a changed threshold or a banned row repeats only curation, and a changed judge does not repeat
generation. A judge before a stage is part of generation: when it changes, the journal replays the replies, and only newly
accepted rows cost calls. So are judges, thresholds and reviews of a leaf that wants a number of rows, because they decide how
often its rows are asked for.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

from lab_pipeline.config.settings import SensorSettings, Settings
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import GENERATED_SCHEMA
from lab_pipeline.core.storage import digest, read_json
from lab_pipeline.curation.version import CURATION_VERSION
from lab_pipeline.curation.wording import no_reply
from lab_pipeline.flows.choose import flows_of_leaves
from lab_pipeline.flows.flow import Flow
from lab_pipeline.taxonomy.leaf import Kind
from lab_pipeline.taxonomy.reviews import Review, reviews_in_force
from lab_pipeline.taxonomy.snapshot import Snapshot
from lab_pipeline.taxonomy.withdrawals import withdrawals
from lab_pipeline.teacher.protocol import NO_ANSWER
from lab_pipeline.teacher.spending import Spent

Table = Literal["generated", "judged", "curated", "rejected"]


@dataclass(frozen=True)
class LeafPlan:
    """What a leaf's tables should be made from. `source`, `generated`, `judged` and `curated` are the fingerprints by which the
    frozen source and the tables are stored; the table of rejected rows shares that of `curated`."""

    leaf: str
    source: str
    flow: Flow
    generated: str
    judged: str
    curated: str
    reviews: list[Review]
    rows_wanted: int | None = None
    """Number of rows that curation should keep; None: all rows of the flow are asked for once."""
    rounds: int = 1
    """Maximum number of times that they are asked for, until there are `rows_wanted`."""

    @property
    def provenance(self) -> dict[str, object]:
        """Return the flow's name, its version, and the hash of each of its prompts, as lineage records them."""
        prompts = {name: digest(prompt) for name, prompt in self.flow.prompts.items()}
        return {"flow": self.flow.name, "version": self.flow.file.version, "prompts": prompts}

    def path(self, home: Home, table: Table) -> Path:
        """Return the path of this plan's table, whether or not it is stored yet."""
        fingerprint = {"generated": self.generated, "judged": self.judged}.get(table, self.curated)
        return home.leaf(self.leaf) / f"{table}-{fingerprint}.parquet"


@dataclass(frozen=True)
class LeafState:
    """A leaf's last successful refresh: the fingerprints of its tables, the funnel of its rows, and what it spent. Stored as
    `state.json`."""

    leaf: str
    kind: str
    source: str
    generated: str
    judged: str
    curated: str
    funnel: dict[str, int]
    spent: dict[Table, Spent]
    """By table: *generated*, with the judges before stages, and *judged*."""
    refreshed_at: str
    rules_off: dict[str, str] = field(default_factory=dict)
    """The rules of the flow that are off for the leaf, each with the reason."""
    rows_wanted: int | None = None
    rounds: int = 1
    """How often all rows of the flow were asked for."""

    @property
    def shortfall(self) -> str | None:
        """Say how many rows the leaf has, if fewer than wanted."""
        kept, wanted = self.funnel["kept"], self.rows_wanted or 0
        return f"wanted {wanted} rows, kept {kept} after {self.rounds} rounds" if kept < wanted else None


def utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def plan_leaves(home: Home, snapshot: Snapshot, settings: Settings, teacher: str, judge: str) -> dict[str, LeafPlan]:
    """Return the plan of every usable leaf, even a withdrawn one, by key; none if the settings say that nothing is generated.

    Args:
        teacher: identity of the teacher; likewise `judge`.

    Raises:
        FlowError: a flow named in the settings cannot be used.
        LabError: the home's `reviews.yaml` is wrong.
    """
    if not settings.mixing.generated:
        return {}
    reviews = reviews_in_force(home, snapshot.reviews)
    kinds = {row["leaf"]: cast("Kind", row["kind"]) for row in snapshot.rows if row["leaf"] in snapshot.usable}
    flows = flows_of_leaves(settings, kinds)
    plans = {}
    for leaf, source in snapshot.usable.items():
        flow = flows[leaf]
        models = [teacher, judge] if flow.judges(early=True) else [teacher]
        in_force = reviews.get(leaf, [])
        reviewed = [[review.model_dump(mode="json") for review in in_force]] if in_force else []
        curation = [flow.curation_digest, CURATION_VERSION, *reviewed]
        wanted = settings.rows_wanted.of(leaf)
        rounds = settings.rows_wanted.rounds if wanted else 1
        until = [wanted, rounds, flow.judging_digest, judge, *curation] if wanted else []
        generated = digest([source, flow.generation_digest, models, settings.seed, GENERATED_SCHEMA.names, *until])
        judged = digest([generated, flow.judging_digest, judge])
        curated = digest([judged, *curation])
        plans[leaf] = LeafPlan(leaf, source, flow, generated, judged, curated, in_force, wanted, rounds)
    return plans


def is_whole(table: Path) -> bool:
    """Tell whether a table of rows is stored, and has no row for which the teacher's reply was empty."""
    if not table.exists():
        return False
    import pyarrow.parquet as pq

    faults = pq.read_table(table, columns=["fault"])["fault"].to_pylist()  # one column: this is asked at every refresh
    return not any((fault or "").startswith(NO_ANSWER) for fault in faults)


def leaf_state(home: Home, leaf: str) -> LeafState | None:
    """Read the leaf's last successful refresh; None if there was none."""
    path = home.leaf(leaf) / "state.json"
    return read_state(path) if path.exists() else None


def read_state(file: Path) -> LeafState:
    """Read a `state.json` of this or an earlier release."""
    return LeafState(**_with_spent(read_json(file)))


def _with_spent(stored: dict[str, Any]) -> dict[str, Any]:
    """Return the stored values with `spent` read. Earlier releases stored fewer numbers, and those of both stages together."""
    names = ("prompt_tokens", "completion_tokens", "money")
    old = {"calls": stored.pop("teacher_calls", 0), **{name: stored.pop(name, 0) for name in names}}
    return {**stored, "spent": {stage: Spent(**spent) for stage, spent in stored.get("spent", {"generated": old}).items()}}


@dataclass(frozen=True)
class LeafFailure:
    """A leaf's last refresh, if it failed or lacks answers; stored as `failure.json`, which a full success deletes."""

    leaf: str
    error: str
    attempts: int
    """Number of such refreshes by the same plan."""
    spent: dict[Table, Spent]
    plan: str
    """Fingerprint of the curated table that was planned."""
    failed_at: str


def leaf_failure(home: Home, plan: LeafPlan) -> LeafFailure | None:
    """Read the last failure by this plan; None if there was none, or a refresh by it succeeded for all rows since."""
    path = home.leaf(plan.leaf) / "failure.json"
    stored = read_json(path) if path.exists() else None
    return LeafFailure(**_with_spent(stored)) if stored and stored["plan"] == plan.curated else None


def find_stale_leaves(home: Home, plans: dict[str, LeafPlan]) -> list[str]:
    """Return the keys of the stale leaves, sorted.

    A planned leaf is stale if it was never refreshed, if its last good tables are not those of its plan, or if they lack rows
    because the teacher's reply was empty. Withdrawn leaves are never stale.
    """
    stale = []
    for leaf in sorted(plans.keys() - withdrawals(home).keys()):
        state = leaf_state(home, leaf)
        if state is None or state.curated != plans[leaf].curated or state.funnel.get(no_reply.__name__):
            stale.append(leaf)
    return stale


@dataclass(frozen=True)
class Backlog:
    """The stale leaves, by what happens to them next."""

    due: list[str]
    """Leaves to refresh now."""
    waiting: dict[str, float]
    """Failed leaves that are tried again later, with the seconds until then."""
    left: dict[str, str]
    """Leaves that failed too often, with their last error. A person must act, or the plan must change."""

    def __str__(self) -> str:
        parts = [f"{len(self.due)} to refresh"] if self.due else []
        parts += [f"{leaf}: failed, tried again in {seconds:.0f} s" for leaf, seconds in sorted(self.waiting.items())]
        parts += [f"{leaf}: needs attention: {error}" for leaf, error in sorted(self.left.items())]
        return "; ".join(parts) or "all leaves are current"


def backlog(home: Home, plans: dict[str, LeafPlan], policy: SensorSettings, now: datetime) -> Backlog:
    """Sort the stale leaves into those due, waiting and left. A failed leaf waits for `policy.retry_seconds`, doubled after
    each further failure, and is left after `policy.attempts` failures."""
    found = Backlog([], {}, {})
    for leaf in find_stale_leaves(home, plans):
        failure = leaf_failure(home, plans[leaf])
        if failure is None:
            found.due.append(leaf)
        elif failure.attempts >= policy.attempts:
            found.left[leaf] = failure.error
        else:
            since = (now - datetime.fromisoformat(failure.failed_at)).total_seconds()
            wait = policy.retry_seconds * 2 ** (failure.attempts - 1)
            if 0 <= since < wait:  # if the clock was set back, `since` is negative: do not wait
                found.waiting[leaf] = wait - since
            else:
                found.due.append(leaf)
    return found
