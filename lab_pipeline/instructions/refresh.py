"""Bringing leaves up to date, as planned: what is stored is not made again, and a leaf that fails stops no other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lab_pipeline.config.settings import Settings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.machine import refusal
from lab_pipeline.core.progress import Progress, Say
from lab_pipeline.core.rows import CURATED_SCHEMA, GENERATED_SCHEMA, GROUNDING_SCHEMA, JUDGED_SCHEMA, REJECTED_SCHEMA
from lab_pipeline.core.storage import read_json, read_rows, write_json, write_rows
from lab_pipeline.curation.curate import curate, funnel
from lab_pipeline.curation.grounding import grounding_scores
from lab_pipeline.curation.reviewed import curate_reviewed
from lab_pipeline.curation.rules import no_reply
from lab_pipeline.flows.flow import Flow
from lab_pipeline.instructions.generate import generate, judge, starts
from lab_pipeline.instructions.judge_calibration import Separations
from lab_pipeline.instructions.plan import LeafPlan, LeafState, leaf_failure, provenance_file
from lab_pipeline.models.base_model import fetch_model
from lab_pipeline.teacher.journal import Budget, Counted, JournaledTeacher
from lab_pipeline.teacher.protocol import NO_ANSWER, Teacher

_LEAVES_AT_ONCE = 200
"""Each leaf under way holds a lock file open."""

Ground = Callable[[list[dict[str, Any]]], Awaitable[dict[str, float]]]
"""Measures the grounding of rows, by id."""


def refresh_leaves(
    home: Home,
    plans: list[LeafPlan],
    settings: Settings,
    teacher: Teacher,
    judge_model: Teacher,
    taxonomy_commit: str,
    say: Say,
    on_done: Callable[[LeafState | LeafFailure], None],
) -> None:
    """Refresh the given leaves side by side, so that an embedded teacher's batches stay full.

    A leaf that fails stops no other: its failure is recorded and passed to `on_done` like any outcome.

    Raises:
        OSError: the machine refuses to write, which is no leaf's failure.
    """
    budget = Budget(settings.budgets.teacher_calls)
    sources = {plan.leaf: read_json(home.leaf_source(plan.source)) for plan in plans}
    calls = sum(_calls(home, plan, sources[plan.leaf], settings.seed) for plan in plans)
    progress = Progress("teacher calls", calls, say)

    known = JournaledTeacher(judge_model, home.judges / "journal", budget)
    separations = Separations(home, Counted(known, progress), say)
    at_once = asyncio.Semaphore(_LEAVES_AT_ONCE)
    one_pass = asyncio.Lock()

    async def ground(rows: list[dict[str, Any]]) -> dict[str, float]:
        async with one_pass:  # of the base model, aside, so that calls to endpoints go on
            model = await asyncio.to_thread(fetch_model, home, settings.base_model)
            return await asyncio.to_thread(grounding_scores, model.folder, rows, say)

    async def one(plan: LeafPlan) -> None:
        async with at_once:
            await refreshed(plan)

    async def refreshed(plan: LeafPlan) -> None:
        leaf = home.leaf(plan.leaf)
        asked = [JournaledTeacher(each, leaf / "journal", budget) for each in (teacher, judge_model)]
        by_teacher, by_judge = (Counted(each, progress) for each in asked)
        try:
            leaf.mkdir(parents=True, exist_ok=True)
            with FileLock(leaf / "lock", timeout=0):
                try:
                    flow = await separations.trusted(plan.flow)
                    counts = await _refresh(
                        home, plan, flow, sources[plan.leaf], settings, by_teacher, by_judge, ground, taxonomy_commit
                    )
                except Exception as error:
                    if not _refused(error):  # the calls under way are paid for: wait for them, they end in the journal
                        await asyncio.gather(*(each.settle() for each in (*asked, known)))
                    raise
                write_json(
                    provenance_file(home, plan.leaf, plan.curated),
                    {**plan.recipe, "frozen_source": plan.source, "teacher": teacher.identity, "judge": judge_model.identity},
                )
                state = LeafState(
                    leaf=plan.leaf,
                    kind=plan.flow.kind,
                    source=plan.source,
                    generated=plan.generated,
                    judged=plan.judged,
                    curated=plan.curated,
                    funnel=counts,
                    teacher_calls=sum(each.calls for each in asked),
                    refreshed_at=datetime.now(UTC).isoformat(timespec="seconds"),
                )
                write_json(leaf / "state.json", asdict(state))
                if open_rows := counts.get(no_reply.__name__, 0):  # the leaf's other rows are in use, and it is tried again
                    _failed(home, plan, f"{NO_ANSWER} for {open_rows} of {counts['generated']} rows", asked)
                else:
                    (leaf / "failure.json").unlink(missing_ok=True)
        except Timeout:
            on_done(_failed(home, plan, "another process is refreshing this leaf", asked))
        except Exception as error:  # whatever it was, it is this leaf's outcome, and the others go on
            if _refused(error):
                raise
            on_done(_failed(home, plan, f"{type(error).__name__}: {error}", asked))
        else:
            on_done(state)

    async def everyone() -> None:
        await asyncio.gather(*(one(plan) for plan in plans))

    asyncio.run(everyone())


def _refused(error: Exception) -> bool:
    """Whether the machine is at fault, such as a full disk: that ends the refresh, and counts as no leaf's attempt."""
    return not isinstance(error, LabError) and refusal(error) is not None


@dataclass(frozen=True)
class LeafFailure:
    leaf: str
    error: str
    attempts: int
    teacher_calls: int


def _failed(home: Home, plan: LeafPlan, error: str, asked: list[JournaledTeacher]) -> LeafFailure:
    before = leaf_failure(home, plan)
    attempts = before["attempts"] + 1 if before else 1
    failure = LeafFailure(plan.leaf, error, attempts, sum(each.calls for each in asked))
    failed_at = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(home.leaf(plan.leaf) / "failure.json", {**asdict(failure), "plan": plan.curated, "failed_at": failed_at})
    return failure


async def _refresh(
    home: Home,
    plan: LeafPlan,
    flow: Flow,
    source: dict[str, Any],
    settings: Settings,
    teacher: Teacher,
    judge_model: Teacher,
    ground: Ground,
    taxonomy_commit: str,
) -> dict[str, int]:
    """Make those of the leaf's tables that are not stored yet, by its flow with judges that may gate; return its funnel.

    A table with rows that the teacher gave no answer for is made again: the journal answers for the others.
    """
    generated_path, judged_path, curated_path, rejected_path = (
        plan.path(home, table) for table in ("generated", "judged", "curated", "rejected")
    )
    if not _whole(generated_path):
        candidates = await generate(source, flow, teacher, judge_model, settings.seed, taxonomy_commit)
        _grounding_path(home, plan).unlink(missing_ok=True)  # of the rows before
        write_rows(generated_path, candidates, GENERATED_SCHEMA)
    if not _whole(judged_path):
        judged = await judge(read_rows(generated_path), source, flow, judge_model)
        write_rows(judged_path, judged, JUDGED_SCHEMA)
    rows = read_rows(judged_path)
    if not (curated_path.exists() and _whole(rejected_path)):
        grounding = await _grounding(home, plan, rows, ground) if plan.grounded else None
        kept, rejected = curate_reviewed(rows, plan.reviews, lambda some: curate(some, source, flow, grounding))
        write_rows(rejected_path, rejected, REJECTED_SCHEMA)
        write_rows(curated_path, kept, CURATED_SCHEMA)
    return funnel(len(rows), len(read_rows(curated_path)), read_rows(rejected_path))


def _whole(table: Path) -> bool:
    """Whether a table is stored and the teacher has answered for each of its rows."""
    return table.exists() and not any((row["fault"] or "").startswith(NO_ANSWER) for row in read_rows(table))


def _grounding_path(home: Home, plan: LeafPlan) -> Path:
    return home.leaf(plan.leaf) / f"grounding-{plan.grounded}.parquet"


async def _grounding(home: Home, plan: LeafPlan, rows: list[dict[str, Any]], ground: Ground) -> dict[str, float]:
    """Grounding of the leaf's rows by id, measured unless stored."""
    path = _grounding_path(home, plan)
    if not path.exists():
        scores = await ground(rows)
        write_rows(path, [{"id": row, "grounding": score} for row, score in scores.items()], GROUNDING_SCHEMA)
    return {row["id"]: row["grounding"] for row in read_rows(path)}


def _calls(home: Home, plan: LeafPlan, source: dict[str, Any], seed: int) -> int:
    """About how many calls the leaf will make, those included that the journal will answer: as many as if each reply held what
    was asked for, and no judge stopped a row."""
    flow = plan.flow
    begun = len(starts(source, flow, seed))
    forms = begun * len(flow.file.augmentations)
    rows, calls = begun + forms, forms
    for stage in flow.file.stages:
        calls += rows * (len(stage.temperatures) + sum(judge.before == stage.output for judge in flow.judges(early=True)))
        rows *= len(stage.temperatures) * stage.several
    judging = rows * len(flow.judges(early=False)) if not plan.path(home, "judged").exists() else 0
    return judging + (calls if not plan.path(home, "generated").exists() else 0)
