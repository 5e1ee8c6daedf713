"""Refresh one leaf: make its tables from its frozen source by its plan, and store what came of it."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import (
    CURATED_SCHEMA,
    GENERATED_SCHEMA,
    JUDGED_SCHEMA,
    REJECTED_SCHEMA,
    FrozenLeaf,
    GeneratedRow,
    JudgedRow,
)
from lab_pipeline.core.storage import read_json, read_rows, write_json, write_rows
from lab_pipeline.curation.curate import Curated, Curation, funnel
from lab_pipeline.curation.profile import Profile, profile
from lab_pipeline.curation.wording import no_reply
from lab_pipeline.flows.flow import Flow
from lab_pipeline.instructions.generate import generate, judge
from lab_pipeline.instructions.plan import LeafFailure, LeafPlan, LeafState, Table, is_whole, leaf_failure, leaf_state, utc_now
from lab_pipeline.teacher.journal import Counted
from lab_pipeline.teacher.protocol import NO_ANSWER, TeacherError
from lab_pipeline.teacher.spending import Spent

_MOST_UNANSWERED = 0.5
"""If at least this share of a leaf's rows has no answer of the teacher, the leaf failed."""
T = TypeVar("T")


@dataclass(frozen=True)
class LeafRefresh:
    """The refresh of one leaf, which makes the leaf's tables from its frozen source by its plan."""

    home: Home
    plan: LeafPlan
    seed: int
    taxonomy_commit: str
    room: asyncio.Semaphore
    """For the drafts and rows of all leaves in progress."""
    one_curates: asyncio.Lock
    spent: dict[Table, Spent] = field(default_factory=lambda: {"generated": Spent(), "judged": Spent()})

    @cached_property
    def source(self) -> FrozenLeaf:
        return read_json(self.home.leaf_source(self.plan.source))

    @cached_property
    def profile(self) -> Profile:
        return profile(self.source)

    @property
    def folder(self) -> Path:
        return self.home.leaf(self.plan.leaf)

    def path(self, table: Table) -> Path:
        return self.plan.path(self.home, table)

    async def make_rows(self, flow: Flow, teacher: Counted, judge_model: Counted) -> int:
        """Make and store the tables of generated and judged rows, if they are not stored yet; return the number of rounds.

        A table with rows for which the teacher's reply was empty is made again and replaced; the journal has the other replies.

        Args:
            flow: the plan's flow, in which only judges gate that separate their known rows.
        """
        state = leaf_state(self.home, self.plan.leaf)
        known = state if state and state.curated == self.plan.curated else None
        if not is_whole(self.path("generated")) or (self.plan.rows_wanted and not known):
            return await self._ask(flow, teacher, judge_model)
        if not is_whole(self.path("judged")):
            with self._charged("judged", teacher, judge_model):
                rows = await judge(read_rows(self.path("generated")), self.source, flow, judge_model, self.room)
            write_rows(self.path("judged"), rows, JUDGED_SCHEMA)
        return known.rounds if known else 1

    async def _ask(self, flow: Flow, teacher: Counted, judge_model: Counted) -> int:
        """Have rows written and judged, and store both tables; return the number of rounds.

        A leaf that wants more rows than were kept is given another round, unless the last one brought none, or lacks answers,
        which the next refresh asks for again.
        """
        generated: list[GeneratedRow] = []
        judged: list[JudgedRow] = []
        wanted, kept = self.plan.rows_wanted or 0, 0
        for number in range(self.plan.rounds):
            with self._charged("generated", teacher, judge_model):
                rows = await generate(
                    self.source, flow, teacher, judge_model, self.seed, self.taxonomy_commit, self.room, number
                )
            generated += rows
            _require_answers(generated)
            with self._charged("judged", teacher, judge_model):
                judged += await judge(rows, self.source, flow, judge_model, self.room)
            before, kept = kept, len((await self._curated(judged, flow))[0]) if wanted else 0
            if kept >= wanted or kept == before or _unanswered(generated):
                break
        write_rows(self.path("generated"), generated, GENERATED_SCHEMA)
        write_rows(self.path("judged"), judged, JUDGED_SCHEMA)
        return number + 1

    async def curate(self, flow: Flow) -> tuple[dict[str, int], dict[str, str]]:
        """Store kept and rejected rows, if they are not stored yet; return the funnel of all rows, and why rules are off."""
        rows, curation = read_rows(self.path("judged")), self._curation(flow)
        if not (self.path("curated").exists() and is_whole(self.path("rejected"))):
            kept, dropped = await self._in_thread(lambda: curation.split(rows))
            write_rows(self.path("rejected"), dropped, REJECTED_SCHEMA)
            write_rows(self.path("curated"), kept, CURATED_SCHEMA)
        counts = funnel(len(rows), len(read_rows(self.path("curated"))), read_rows(self.path("rejected")))
        return counts, await self._in_thread(lambda: curation.rules.off)

    async def _curated(self, rows: Sequence[JudgedRow], flow: Flow) -> Curated:
        return await self._in_thread(lambda: self._curation(flow).split(rows))

    def _curation(self, flow: Flow) -> Curation:
        return Curation(self.profile, flow, self.plan.reviews)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Curate in a thread, so that calls of other leaves go on meanwhile."""
        async with self.one_curates:
            return await asyncio.to_thread(work)

    @contextmanager
    def _charged(self, table: Table, *models: Counted) -> Iterator[None]:
        """Count what the models' calls take, and the time, for one of the tables."""
        started = time.monotonic()
        for model in models:
            model.charge(self.spent[table])
        try:
            yield
        finally:
            self.spent[table].seconds += time.monotonic() - started

    def succeeded(self, counts: dict[str, int], off: dict[str, str], rounds: int, teacher: str, judge_model: str) -> LeafState:
        """Store what the leaf's tables were made from, and store and return its state; forget earlier failures.

        If the teacher's reply was empty for some rows, record a failure as well, so that the leaf is tried again.
        """
        plan, models = self.plan, {"teacher": teacher, "judge": judge_model}
        write_json(self.home.provenance(plan.leaf, plan.curated), {**plan.provenance, "frozen_source": plan.source, **models})
        state = LeafState(
            leaf=plan.leaf,
            kind=plan.flow.kind,
            source=plan.source,
            generated=plan.generated,
            judged=plan.judged,
            curated=plan.curated,
            funnel=counts,
            spent=self.spent,
            refreshed_at=utc_now(),
            rules_off=off,
            rows_wanted=plan.rows_wanted,
            rounds=rounds,
        )
        write_json(self.folder / "state.json", asdict(state))
        if unanswered := counts.get(no_reply.__name__, 0):  # the other rows are in use nevertheless
            self.failed(f"{NO_ANSWER} for {unanswered} of {counts['generated']} rows")
        else:
            (self.folder / "failure.json").unlink(missing_ok=True)
        return state

    def failed(self, error: str) -> LeafFailure:
        """Store and return a failed attempt at this plan, counted on from earlier failures of the same plan."""
        before = leaf_failure(self.home, self.plan)
        attempts = before.attempts + 1 if before else 1
        failure = LeafFailure(self.plan.leaf, error, attempts, self.spent, self.plan.curated, utc_now())
        write_json(self.folder / "failure.json", asdict(failure))
        return failure


def _unanswered(rows: Iterable[GeneratedRow]) -> list[str]:
    """Return the faults of the rows that have no answer of the teacher."""
    return [fault for row in rows if (fault := row["fault"] or "").startswith(NO_ANSWER)]


def _require_answers(rows: Sequence[GeneratedRow]) -> None:
    """Refuse rows of which most have no answer of the teacher: then the leaf failed, and its earlier rows stay in use.

    Raises:
        TeacherError: At least `_MOST_UNANSWERED` of the rows have none.
    """
    faults = _unanswered(rows)
    if faults and len(faults) >= _MOST_UNANSWERED * len(rows):
        fault, _ = Counter(faults).most_common(1)[0]
        raise TeacherError(f"no answer for {len(faults)} of {len(rows)} rows; most often: {fault}")
