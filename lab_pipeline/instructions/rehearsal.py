"""Rehearse a leaf's refresh without a model, to know beforehand how many calls and tokens it takes.

The real stages run, on a teacher that answers with the leaf's own seed examples. So all prompts are rendered as they will be,
and replies are about as long. Requests that the journal answers are answered by it, and cost nothing. Of a large leaf
without any reply yet, some starting points stand for all, since a refresh waits for its rehearsal.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from lab_pipeline.core.rows import FrozenLeaf, GeneratedRow, SeedExample
from lab_pipeline.flows.flow import Flow, Judge, Stage
from lab_pipeline.instructions import generate as generation
from lab_pipeline.instructions.generate import Draft
from lab_pipeline.teacher.protocol import Reply, Request

TURN_TOKENS = 4
"""Tokens that a chat template adds to each message, about."""
_DRAFTS = 8
"""About so many of a leaf's first drafts are rehearsed, spread evenly, and stand for all."""
_ROWS = 100
"""About so many of their rows are judged, and stand for all."""
T = TypeVar("T")


@dataclass(frozen=True)
class Rehearser:
    """Describe the models to a rehearsal: their identities, how they count tokens, and the replies in the journal."""

    teacher: str
    judge: str
    count: Callable[[str], int]
    replies: Mapping[str, Reply] = field(default_factory=dict)
    """Replies by the hash of their requests, as `read_journal` gives them."""


@dataclass(frozen=True)
class Rehearsed:
    """What a refresh would take: calls that are not in the journal, and their tokens; and calls that the journal answers."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    recalled: int = 0

    def __add__(self, other: Rehearsed) -> Rehearsed:
        return Rehearsed(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.recalled + other.recalled,
        )


class _Understudy:
    """Answers in place of a model, with what `says` gives next, and counts what each new request would cost."""

    def __init__(self, identity: str, models: Rehearser) -> None:
        self.identity = identity
        self.says: Callable[[], str] = str
        self.numbers = itertools.count()
        self._models = models
        self._asked: dict[Request, Reply] = {}
        self._recalled: set[Request] = set()
        self.prompt_tokens = self.completion_tokens = 0

    def cost(self, share: float) -> Rehearsed:
        """Return what all would cost, if the requests so far are this share of it."""
        counts = len(self._asked), self.prompt_tokens, self.completion_tokens, len(self._recalled)
        return Rehearsed(*(round(count / share) for count in counts))

    async def reply(self, request: Request) -> Reply:
        if self._models.replies and (known := self._models.replies.get(request.key(self.identity))):
            self._recalled.add(request)
            return known
        if request in self._asked:
            return self._asked[request]
        text = request.choices[0] if request.choices else self.says()
        spent = min(self._models.count(text) + 1, request.max_tokens)
        self.prompt_tokens += sum(self._models.count(message.content) + TURN_TOKENS for message in request.messages)
        self.completion_tokens += spent
        probabilities = {choice: float(choice == text) for choice in request.choices}
        self._asked[request] = Reply(text, "stop", 0, 0, probabilities)
        return self._asked[request]


def rehearse(
    leaf: FrozenLeaf,
    flow: Flow,
    seed: int,
    models: Rehearser,
    generated: list[GeneratedRow] | None = None,
    candidates: float = 0,
    rounds: int = 1,
) -> tuple[Rehearsed, Rehearsed]:
    """Return the cost of generating a leaf's rows, and that of judging them; of judging alone if the rows are `generated`.

    Each reply is taken to be like a seed example, with as many items as the flow asks for, and no judge to stop a row.

    Args:
        candidates: Number of rows until which further rounds are made, at most `rounds`.

    Raises:
        FlowError: a prompt uses a variable that the rows lack.
    """

    async def both() -> tuple[Rehearsed, Rehearsed]:
        writer = _Understudy(models.teacher, models)
        judge, late = _Understudy(models.judge, models), _Understudy(models.judge, models)
        rows, share = generated or [], 1.0
        for number in range(0 if generated is not None else rounds):
            drafts = generation.first_drafts(leaf, flow, seed, number)
            chosen = drafts if models.replies else _some(drafts, flow.file.start.repeats)
            share = len(chosen) / len(drafts) if drafts else 1.0
            rows = rows + await _round(leaf, flow, seed, chosen, writer, judge)
            if len(rows) / share >= candidates:
                break
        judged = rows if models.replies else spread(rows, _ROWS)
        await generation.judge(judged, leaf, flow, late)
        return writer.cost(share), judge.cost(share) + late.cost(share * len(judged) / len(rows) if rows else 1.0)

    return asyncio.run(both())


def spread(items: Sequence[T], count: int) -> list[T]:
    """Return at most `count` items, evenly spread over all."""
    return [items[number * len(items) // count] for number in range(count)] if len(items) > count else list(items)


def _some(drafts: list[Draft], repeats: int) -> list[Draft]:
    """Return the drafts of some starting points, in all repeats, because repeats have requests in common."""
    points = len(drafts) // repeats
    chosen = set(spread(range(points), max(_DRAFTS // repeats, 1)))
    return [draft for number, draft in enumerate(drafts) if number % points in chosen]


async def _round(
    leaf: FrozenLeaf, flow: Flow, seed: int, drafts: list[Draft], writer: _Understudy, judge: _Understudy
) -> list[GeneratedRow]:
    """Return the rows that these first drafts lead to; `generate` makes them likewise, but of what the teacher says."""
    passages = itertools.cycle([passage["text"] for passage in leaf["passages"]] or [""])
    writer.says = lambda: f"{next(writer.numbers)} {next(passages)[::2]}"  # a summary of half the length
    drafts = await generation.map_each(drafts, partial(generation.augment, flow=flow, teacher=writer, seed=seed))
    for stage in flow.file.stages:
        writer.says = _texts(leaf["seeds"], stage, writer.numbers).__next__
        early = [each for each in flow.judges(early=True) if each.before == stage.output]
        drafts = await generation.map_each(drafts, partial(generation.judge_early, judges=early, flow=flow, judge_model=judge))
        drafts = await generation.map_each(
            drafts, partial(generation.run_stage, stage=stage, flow=flow, teacher=writer, seed=seed)
        )
    return [generation.record(draft, flow, writer.identity, "") for draft in drafts]


def rehearse_known_rows(judges: Iterable[tuple[Flow, Judge]], models: Rehearser) -> Rehearsed:
    """Return the cost of asking judges about their known rows (see `instructions/judge_calibration.py`)."""
    understudy = _Understudy(models.judge, models)

    async def ask() -> None:
        for flow, judge in judges:
            for row in itertools.chain(*flow.known_rows(judge)):
                await generation.score(row, judge, flow, understudy)

    asyncio.run(ask())
    return understudy.cost(1.0)


def _texts(seeds: list[SeedExample], stage: Stage, numbers: Iterator[int]) -> Iterator[str]:
    """Yield replies to a stage for ever: the seeds' own texts, in turn, with labels where the stage wants them. A number makes
    each text a new one, since a request about a text that was there before would be no call."""
    none: SeedExample = {"question": "", "answer": "", "context": None, "asked": ""}
    wanted = zip(numbers, itertools.cycle(seeds or [none]), strict=False)
    while True:
        items = list(itertools.islice(wanted, stage.several))
        if stage.labelled:
            lines = (
                f"{column.capitalize()}: {number} {_text(item, column)}" for number, item in items for column in stage.columns
            )
            yield "\n".join(lines)
        else:
            number, item = items[0]
            yield f"{number} {_text(item, stage.output)}"


def _text(seed: SeedExample, column: str) -> str:
    text = {"question": seed["question"], "answer": seed["answer"], "context": seed["context"]}[column]
    return (text or "").strip() or "None."
