"""Refresh leaves as planned: make the tables that are not stored yet. A leaf that fails does not stop the others."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from lab_pipeline.config.settings import Settings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.machine import refusal
from lab_pipeline.core.progress import Progress, Say
from lab_pipeline.core.rows import (
    CURATED_SCHEMA,
    GENERATED_SCHEMA,
    JUDGED_SCHEMA,
    REJECTED_SCHEMA,
    FrozenLeaf,
    GeneratedRow,
)
from lab_pipeline.core.storage import read_json, read_rows, write_json, write_rows
from lab_pipeline.curation.curate import Curation, funnel
from lab_pipeline.curation.profile import profile
from lab_pipeline.curation.reviewed import curate_reviewed
from lab_pipeline.curation.rules import rules_of
from lab_pipeline.curation.wording import no_reply
from lab_pipeline.flows.flow import Flow
from lab_pipeline.instructions.generate import generate, judge
from lab_pipeline.instructions.judge_calibration import Separations
from lab_pipeline.instructions.plan import LeafFailure, LeafPlan, LeafState, Table, leaf_failure
from lab_pipeline.instructions.rehearsal import expected_calls
from lab_pipeline.teacher.journal import Budget, Counted, JournaledTeacher
from lab_pipeline.teacher.protocol import NO_ANSWER, Teacher, TeacherError

_LEAVES_AT_ONCE = 200
"""Limit of leaves in progress at the same time, since each holds a lock file open."""
_DRAFTS_AT_ONCE = 512
"""Limit of drafts, or rows to judge, in progress at the same time over all leaves: enough for every batch and connection to be
full, and few enough for memory to hold their prompts."""
_MOST_UNANSWERED = 0.5
"""If at least this share of a leaf's rows has no answer of the teacher, the leaf failed."""


def refresh_leaves(
    home: Home,
    plans: Sequence[LeafPlan],
    settings: Settings,
    teacher: Teacher,
    judge_model: Teacher,
    taxonomy_commit: str,
    say: Say,
    on_done: Callable[[LeafState | LeafFailure], None],
) -> None:
    """Refresh leaves concurrently, so that the batches of an embedded teacher stay full; store their tables and outcomes.

    A leaf that fails, or that another process is refreshing, does not stop the others: its failure is stored too. All leaves
    share the budget of calls in the settings.

    Args:
        say: takes progress and warnings.
        on_done: takes the outcome of each leaf, good or bad, as soon as the leaf is done.

    Raises:
        OSError: the machine refuses to write, as on a full disk. This ends the refresh, and counts as no leaf's failure.
    """
    budget = Budget.of(settings.budgets)
    leaves = [
        _LeafRefresh(home, plan, read_json(home.leaf_source(plan.source)), settings.seed, taxonomy_commit) for plan in plans
    ]
    progress = Progress("teacher calls", sum(leaf.expected_calls for leaf in leaves), say)
    calibrating = JournaledTeacher(judge_model, home.judges / "journal", budget)
    separations = Separations(home, Counted(calibrating, progress), say)
    slots, room = asyncio.Semaphore(_LEAVES_AT_ONCE), asyncio.Semaphore(_DRAFTS_AT_ONCE)
    one_curates = asyncio.Lock()

    async def refresh(leaf: _LeafRefresh) -> None:
        async with slots:
            models = [JournaledTeacher(model, leaf.folder / "journal", budget) for model in (teacher, judge_model)]
            by_teacher, by_judge = (Counted(model, progress) for model in models)
            try:
                leaf.folder.mkdir(parents=True, exist_ok=True)
                with FileLock(leaf.folder / "lock", timeout=0):
                    try:
                        flow = await separations.trusted(leaf.plan.flow)
                        await leaf.make_rows(flow, by_teacher, by_judge, room)
                        async with one_curates:  # in a thread: calls of other leaves go on meanwhile
                            counts, off = await asyncio.to_thread(leaf.curate, flow)
                    except Exception as error:
                        if not _refused(error):  # calls in progress are paid for: wait until the journal has their replies
                            await asyncio.gather(*(model.settle() for model in (*models, calibrating)))
                        raise
                    outcome: LeafState | LeafFailure = leaf.succeeded(counts, off, *models)
            except Timeout:
                outcome = leaf.failed("another process is refreshing this leaf", *models)
            except Exception as error:  # any other error is this leaf's outcome, and the others go on
                if _refused(error):
                    raise
                outcome = leaf.failed(f"{type(error).__name__}: {error}", *models)
        on_done(outcome)

    async def refresh_all() -> None:
        await asyncio.gather(*map(refresh, leaves))

    asyncio.run(refresh_all())


def _refused(error: Exception) -> bool:
    """Tell whether the machine caused the error, as a full disk does. It ends the refresh and counts against no leaf."""
    return not isinstance(error, LabError) and refusal(error) is not None


@dataclass(frozen=True)
class _LeafRefresh:
    """The refresh of one leaf, which makes the leaf's tables from its frozen source by its plan."""

    home: Home
    plan: LeafPlan
    source: FrozenLeaf
    seed: int
    taxonomy_commit: str

    @property
    def folder(self) -> Path:
        return self.home.leaf(self.plan.leaf)

    def path(self, table: Table) -> Path:
        return self.plan.path(self.home, table)

    @property
    def expected_calls(self) -> int:
        """Estimate how many replies the leaf's missing tables need, including replies that the journal has already."""
        if self.path("judged").exists():
            return 0
        generated = read_rows(self.path("generated")) if self.path("generated").exists() else None
        return expected_calls(self.source, self.plan.flow, self.seed, generated)

    async def make_rows(self, flow: Flow, teacher: Teacher, judge_model: Teacher, room: asyncio.Semaphore) -> None:
        """Make and store the tables of generated and judged rows, if they are not stored yet.

        A table with rows for which the teacher's reply was empty is made again and replaced; the journal has the other replies.

        Args:
            flow: the plan's flow, in which only judges gate that separate their known rows.
            room: for the drafts and rows of all leaves in progress.
        """
        generated, judged = self.path("generated"), self.path("judged")
        if not _is_whole(generated):
            candidates = await generate(self.source, flow, teacher, judge_model, self.seed, self.taxonomy_commit, room)
            _require_answers(candidates)
            write_rows(generated, candidates, GENERATED_SCHEMA)
        if not _is_whole(judged):
            write_rows(judged, await judge(read_rows(generated), self.source, flow, judge_model, room), JUDGED_SCHEMA)

    def curate(self, flow: Flow) -> tuple[dict[str, int], dict[str, str]]:
        """Store kept and rejected rows, if they are not stored yet; return the funnel of all rows, and why rules are off."""
        curated, rejected = self.path("curated"), self.path("rejected")
        rows = read_rows(self.path("judged"))
        leaf = profile(self.source)
        rules = rules_of(leaf, flow)
        if not (curated.exists() and _is_whole(rejected)):
            kept, dropped = curate_reviewed(rows, self.plan.reviews, Curation(leaf, rules, flow).split)
            write_rows(rejected, dropped, REJECTED_SCHEMA)
            write_rows(curated, kept, CURATED_SCHEMA)
        return funnel(len(rows), len(read_rows(curated)), read_rows(rejected)), rules.off

    def succeeded(
        self, counts: dict[str, int], off: dict[str, str], teacher: JournaledTeacher, judge_model: JournaledTeacher
    ) -> LeafState:
        """Store what the leaf's tables were made from, and store and return its state; forget earlier failures.

        If the teacher's reply was empty for some rows, record a failure as well, so that the leaf is tried again.
        """
        plan, models = self.plan, {"teacher": teacher.identity, "judge": judge_model.identity}
        write_json(self.home.provenance(plan.leaf, plan.curated), {**plan.provenance, "frozen_source": plan.source, **models})
        state = LeafState(
            leaf=plan.leaf,
            kind=plan.flow.kind,
            source=plan.source,
            generated=plan.generated,
            judged=plan.judged,
            curated=plan.curated,
            funnel=counts,
            teacher_calls=teacher.calls + judge_model.calls,
            refreshed_at=_now(),
            rules_off=off,
            prompt_tokens=teacher.prompt_tokens + judge_model.prompt_tokens,
            completion_tokens=teacher.completion_tokens + judge_model.completion_tokens,
            money=teacher.money + judge_model.money,
        )
        write_json(self.folder / "state.json", asdict(state))
        if unanswered := counts.get(no_reply.__name__, 0):  # the other rows are in use nevertheless
            self.failed(f"{NO_ANSWER} for {unanswered} of {counts['generated']} rows", teacher, judge_model)
        else:
            (self.folder / "failure.json").unlink(missing_ok=True)
        return state

    def failed(self, error: str, *models: JournaledTeacher) -> LeafFailure:
        """Store and return a failed attempt at this plan, counted on from earlier failures of the same plan."""
        before = leaf_failure(self.home, self.plan)
        attempts, calls = before.attempts + 1 if before else 1, sum(model.calls for model in models)
        failure = LeafFailure(self.plan.leaf, error, attempts, calls, self.plan.curated, _now())
        write_json(self.folder / "failure.json", asdict(failure))
        return failure


def _require_answers(rows: Sequence[GeneratedRow]) -> None:
    """Refuse rows of which most have no answer of the teacher: then the leaf failed, and its earlier rows stay in use.

    Raises:
        TeacherError: At least `_MOST_UNANSWERED` of the rows have none.
    """
    faults = [row["fault"] for row in rows if (row["fault"] or "").startswith(NO_ANSWER)]
    if faults and len(faults) >= _MOST_UNANSWERED * len(rows):
        fault, _ = Counter(faults).most_common(1)[0]
        raise TeacherError(f"no answer for {len(faults)} of {len(rows)} rows; most often: {fault}")


def _is_whole(table: Path) -> bool:
    """Tell whether a table is stored, and has no row for which the teacher's reply was empty."""
    if not table.exists():
        return False
    faults = pq.read_table(table, columns=["fault"])["fault"].to_pylist()  # one column: this is asked at every refresh
    return not any((fault or "").startswith(NO_ANSWER) for fault in faults)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
