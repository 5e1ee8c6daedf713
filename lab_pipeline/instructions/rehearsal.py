"""Rehearse a leaf's refresh without a model, to know beforehand how many calls and tokens it takes.

The real stages run, on a teacher that answers with the leaf's own seed examples. So all prompts are rendered as they will be,
and replies are about as long. Requests that the journal answers are answered by it, and cost nothing.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from lab_pipeline.core.rows import FrozenLeaf, GeneratedRow, SeedExample
from lab_pipeline.flows.flow import Flow, Stage
from lab_pipeline.instructions import generate as generation
from lab_pipeline.teacher.protocol import Reply, Request

TURN_TOKENS = 4
"""Tokens that a chat template adds to each message, about."""


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
    """What a refresh would take: calls that are not in the journal, and their tokens."""

    calls: int
    prompt_tokens: int
    completion_tokens: int

    def __add__(self, other: Rehearsed) -> Rehearsed:
        return Rehearsed(*(one + two for one, two in zip(self._counts, other._counts, strict=True)))

    @property
    def _counts(self) -> tuple[int, int, int]:
        return self.calls, self.prompt_tokens, self.completion_tokens


class _Understudy:
    """Answers in place of a model, with `text`, and counts what each new request would cost."""

    def __init__(self, identity: str, models: Rehearser, text: Callable[[], str]) -> None:
        self.identity = identity
        self._models = models
        self._text = text
        self._asked: dict[str, Reply] = {}
        self.prompt_tokens = self.completion_tokens = 0

    @property
    def cost(self) -> Rehearsed:
        return Rehearsed(len(self._asked), self.prompt_tokens, self.completion_tokens)

    async def reply(self, request: Request) -> Reply:
        key = request.key(self.identity)
        if known := self._models.replies.get(key) or self._asked.get(key):
            return known
        text = request.choices[0] if request.choices else self._text()
        spent = min(self._models.count(text) + 1, request.max_tokens)
        self.prompt_tokens += sum(self._models.count(message.content) + TURN_TOKENS for message in request.messages)
        self.completion_tokens += 1 if request.choices else spent
        probabilities = {choice: float(choice == text) for choice in request.choices}
        self._asked[key] = Reply(text, "stop", 0, 0, probabilities)
        return self._asked[key]


def rehearse(
    leaf: FrozenLeaf, flow: Flow, seed: int, models: Rehearser, generated: list[GeneratedRow] | None = None
) -> tuple[Rehearsed, Rehearsed]:
    """Return the cost of generating a leaf's rows, and that of judging them; of judging alone if the rows are `generated`.

    Each reply is taken to be like a seed example, with as many items as the flow asks for, and no judge to stop a row.

    Raises:
        FlowError: a prompt uses a variable that the rows lack.
    """
    return asyncio.run(_rehearse(leaf, flow, seed, models, generated))


async def _rehearse(
    leaf: FrozenLeaf, flow: Flow, seed: int, models: Rehearser, generated: list[GeneratedRow] | None
) -> tuple[Rehearsed, Rehearsed]:
    judge = _Understudy(models.judge, models, str)
    written = Rehearsed(0, 0, 0)
    if generated is None:
        passages, numbers = itertools.cycle([passage["text"] for passage in leaf["passages"]] or [""]), itertools.count()
        writer = _Understudy(models.teacher, models, lambda: _numbered(next(passages)[::2], next(numbers)))  # half as long
        drafts = generation.first_drafts(leaf, flow, seed)
        drafts = await generation.map_each(drafts, partial(generation.augment, flow=flow, teacher=writer, seed=seed))
        written += writer.cost
        for stage in flow.file.stages:
            seeds = _texts(leaf["seeds"], stage)
            writer = _Understudy(models.teacher, models, seeds.__next__)
            early = [each for each in flow.judges(early=True) if each.before == stage.output]
            drafts = await generation.map_each(
                drafts, partial(generation.judge_early, judges=early, flow=flow, judge_model=judge)
            )
            drafts = await generation.map_each(
                drafts, partial(generation.run_stage, stage=stage, flow=flow, teacher=writer, seed=seed)
            )
            written += writer.cost
        generated = [generation.record(draft, flow, models.teacher, "") for draft in drafts]
    await generation.judge(generated, leaf, flow, judge)
    return written, judge.cost


def expected_calls(leaf: FrozenLeaf, flow: Flow, seed: int, generated: list[GeneratedRow] | None = None) -> int:
    """Return about how many replies a leaf's rows need, without rendering a prompt; of judges alone if they are `generated`.

    As in `rehearse`, each reply has as many items as the flow asks for, and no judge stops a row.
    """
    judges = flow.judges(early=False)
    if generated is not None:
        return sum(not row["fault"] for row in generated) * len(judges)
    first = generation.first_drafts(leaf, flow, seed)
    forms = len(flow.file.augmentations)
    finished = sum(draft.repeat == 0 for draft in first) * forms
    drafts, calls = len(first) * (1 + forms), finished
    asked: set[str] = set()
    for stage in flow.file.stages:
        early = {each.name for each in flow.judges(early=True) if each.before == stage.output} - asked
        asked |= early
        calls += drafts * (len(early) + len(stage.temperatures))
        drafts *= len(stage.temperatures) * stage.several
    return calls + drafts * len(judges) + finished * sum(each.document_instructions for each in judges)


def _texts(seeds: list[SeedExample], stage: Stage) -> Iterator[str]:
    """Yield replies to a stage for ever: the seeds' own texts, in turn, with labels where the stage wants them."""
    none: SeedExample = {"question": "", "answer": "", "context": None, "asked": ""}
    wanted, numbers = itertools.cycle(seeds or [none]), itertools.count()
    while True:
        items = list(itertools.islice(wanted, stage.several))
        columns = stage.columns if stage.labelled else (stage.output,)
        texts = [(column, _numbered(_text(item, column), next(numbers))) for item in items for column in columns]
        yield "\n".join(f"{column.capitalize()}: {text}" for column, text in texts) if stage.labelled else texts[0][1]


def _text(seed: SeedExample, column: str) -> str:
    text = {"question": seed["question"], "answer": seed["answer"], "context": seed["context"]}[column]
    return (text or "").strip() or "None."


def _numbered(text: str, number: int) -> str:
    """Put a number in place of a text's end. A model's replies differ, and so do the calls that are made about them."""
    return f"{text[: -len(str(number))]}{number}"
