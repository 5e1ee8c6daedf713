"""Refresh leaves as planned: make the tables that are not stored yet. A leaf that fails does not stop the others."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from filelock import FileLock, Timeout

from lab_pipeline.config.settings import Settings
from lab_pipeline.core import event_loop
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.machine import refusal
from lab_pipeline.core.progress import Progress, Say
from lab_pipeline.instructions.bill import Cost, bill, record_spending
from lab_pipeline.instructions.judge_calibration import Separations
from lab_pipeline.instructions.leaf_refresh import LeafRefresh
from lab_pipeline.instructions.plan import LeafFailure, LeafPlan, LeafState
from lab_pipeline.teacher.journal import Budget, Counted, JournaledTeacher
from lab_pipeline.teacher.protocol import Teacher
from lab_pipeline.teacher.spending import Spent, total

_LEAVES_AT_ONCE = 200
"""Limit of leaves in progress at the same time, since each holds a lock file open."""
_DRAFTS_AT_ONCE = 512
"""Limit of drafts, or rows to judge, in progress at the same time over all leaves: enough for every batch and connection to be
full, and few enough for memory to hold their prompts."""


@dataclass(frozen=True)
class Refreshed:
    """What a refresh was expected to take, and what it took, judges' calls about known rows included."""

    expected: Cost
    spent: Spent


def refresh_leaves(
    home: Home,
    plans: Sequence[LeafPlan],
    settings: Settings,
    teacher: Teacher,
    judge_model: Teacher,
    taxonomy_commit: str,
    say: Say,
    on_done: Callable[[LeafState | LeafFailure], None],
) -> Refreshed:
    """Refresh leaves concurrently, so that the batches of an embedded teacher stay full; store their tables and outcomes.

    What it is expected to take is said first, and what it took is stored in `Home.spending`; both are returned.

    A leaf that fails, or that another process is refreshing, does not stop the others: its failure is stored too. All leaves
    share the budget of calls in the settings.

    Args:
        say: takes progress and warnings.
        on_done: takes the outcome of each leaf, good or bad, as soon as the leaf is done.

    Raises:
        OSError: the machine refuses to write, as on a full disk. This ends the refresh, and counts as no leaf's failure.
    """
    started = time.monotonic()
    identities = teacher.identity, judge_model.identity
    expected = bill(home, settings, plans, *identities)
    whole = expected.total
    if whole.calls:
        say(f"expected: {expected}")
    budget = Budget.of(settings)
    progress = Progress("teacher calls", whole.calls + whole.recalled, say)
    calibrating = JournaledTeacher(judge_model, home.judges / "journal", budget)
    separations = Separations(home, Counted(calibrating, progress), say)
    slots, room, one_curates = asyncio.Semaphore(_LEAVES_AT_ONCE), asyncio.Semaphore(_DRAFTS_AT_ONCE), asyncio.Lock()
    outcomes: list[LeafState | LeafFailure] = []

    async def refresh(plan: LeafPlan) -> None:
        async with slots:
            leaf = LeafRefresh(home, plan, settings.seed, taxonomy_commit, room, one_curates)
            models = [JournaledTeacher(model, leaf.folder / "journal", budget) for model in (teacher, judge_model)]
            by_teacher, by_judge = (Counted(model, progress) for model in models)
            try:
                leaf.folder.mkdir(parents=True, exist_ok=True)
                with FileLock(leaf.folder / "lock", timeout=0):
                    try:
                        flow = await separations.trusted(plan.flow)
                        rounds = await leaf.make_rows(flow, by_teacher, by_judge)
                        counts, off = await leaf.curate(flow)
                    except Exception as error:
                        if not _refused(error):  # calls in progress are paid for: wait until the journal has their replies
                            await asyncio.gather(*(model.settle() for model in (*models, calibrating)))
                        raise
                    outcome: LeafState | LeafFailure = leaf.succeeded(counts, off, rounds, *identities)
            except Timeout:
                outcome = leaf.failed("another process is refreshing this leaf")
            except Exception as error:  # any other error is this leaf's outcome, and the others go on
                if _refused(error):
                    raise
                outcome = leaf.failed(str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}")
        outcomes.append(outcome)
        on_done(outcome)

    async def refresh_all() -> None:
        await asyncio.gather(*map(refresh, plans))

    event_loop.run(refresh_all())
    spent = total([calibrating.spent, *(each for outcome in outcomes for each in outcome.spent.values())])
    spent.seconds = time.monotonic() - started
    states = [outcome for outcome in outcomes if isinstance(outcome, LeafState)]
    record_spending(home, identities, expected, plans, states, spent)
    return Refreshed(whole, spent)


def _refused(error: Exception) -> bool:
    """Tell whether the machine caused the error, as a full disk does. It ends the refresh and counts against no leaf."""
    return not isinstance(error, LabError) and refusal(error) is not None
