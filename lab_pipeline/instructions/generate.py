"""Run a flow on one leaf: the teacher writes candidate rows, and judges score them."""

import asyncio
import math
import random
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar, cast

from lab_pipeline.core.rows import (
    FrozenLeaf,
    GeneratedRow,
    JudgedRow,
    JudgeScore,
    Passage,
    SeedExample,
    is_document_instruction,
)
from lab_pipeline.core.storage import digest
from lab_pipeline.curation.profile import profile
from lab_pipeline.flows.flow import STOPS_BELOW, Augmentation, Flow, Judge, Stage
from lab_pipeline.instructions.replies import read_reply
from lab_pipeline.taxonomy.documents.passages import passage_sentences
from lab_pipeline.teacher.judging import read_verdict
from lab_pipeline.teacher.protocol import NoVerdict, Request, Teacher
from lab_pipeline.text.sentences import sentences
from lab_pipeline.text.words import all_words

_VERDICT_TOKENS = 8
_TRIES = 3
_AT_ONCE = 512
"""First drafts, or rows to judge, that are worked on at once where nothing else is asked for."""
_RETRY_TEMPERATURE = 0.5
"""Temperature at which an unreadable verdict is asked for again, since a greedy reply would be the same."""

_BYTES_IN_TOKEN = 3
"""Bytes of a seed that count as one token. A token of English has about 4, so a row may be a third longer than the seed."""
_MOST_ROOM = 4
"""Maximum factor by which long seeds raise the `max_tokens` of a stage; it bounds what such a leaf can cost."""
_MOST_TOKENS = 1024
"""Number of tokens up to which long seeds raise a stage, since a model's context is limited. A flow may give more itself."""
_SHORTEST_SENTENCE = 4
"""Sentences and passages with fewer words than this, such as headings, start no row."""

Item = TypeVar("Item")
Done = TypeVar("Done")
Example = dict[str, str | None]
"""A seed as prompts show it: its `context`, `question` and `answer`, and as `support` the text that its answer rests on."""


@dataclass(frozen=True)
class Draft:
    """A candidate row in progress. Drafts are immutable: a stage continues one by making a new draft from it."""

    leaf: FrozenLeaf
    origin: list[Any]
    """Where the draft comes from: its starting point, repeat, augmentation, and the number of each sample and item. It is
    unique within the leaf, and decides the seed of the sampling."""
    repeat: int
    examples: list[Example]
    passage: Passage | None
    support: str | None
    """The sentence or passage that the draft starts from; None for a seed."""
    text: str | None
    """What the teacher writes from: `support`, or an augmentation's form of it."""
    columns: Mapping[str, str]
    """The texts written so far, by column: `context`, `question`, `answer`."""
    augmentation: str | None = None
    scores: Sequence[JudgeScore] = ()
    fault: str | None = None
    done: bool = False
    """True: no further stage continues this draft."""

    @property
    def variables(self) -> dict[str, Any]:
        """Return the variables that a prompt template may name: the leaf's description, the examples, the passage's heading,
        `support`, `text`, and the columns written so far. `variables_by_prompt` in `flows/flow.py` lists the same names."""
        return {
            **_description(self.leaf),
            "examples": self.examples,
            "heading": self.passage["heading"] if self.passage else "",
            "support": self.support,
            "text": self.text,
            **self.columns,
        }


def first_drafts(leaf: FrozenLeaf, flow: Flow, seed: int, round_number: int = 0) -> list[Draft]:
    """Return the drafts that a leaf's rows start from: in each repeat, one for each sentence, passage or seed of the leaf, in
    the leaf's order. Sentences and passages of fewer than `_SHORTEST_SENTENCE` words start none.

    Each repeat draws examples from the leaf's seeds, by `seed`. Its drafts share them, so that prefix caches hit. A later
    round, for a leaf that wants more rows, goes on with further repeats.
    """
    start = flow.file.start
    language = profile(leaf).language if start.each == "sentence" else None
    drafts = []
    for repeat in range(round_number * start.repeats, (round_number + 1) * start.repeats):
        choice = random.Random(digest([seed, leaf["leaf"], repeat]))
        drawn = choice.sample(leaf["seeds"], min(start.examples, len(leaf["seeds"])))
        examples = [_example(each, start.each, language) for each in drawn]
        for origin, passage, text in _origins(leaf, start.each, language):
            columns = {"answer": text} if start.answers and text else {}
            drafts.append(Draft(leaf, [*origin, repeat], repeat, examples, passage, support=text, text=text, columns=columns))
    return drafts


def _description(leaf: FrozenLeaf) -> dict[str, str]:
    return {"task": leaf["task"], "domain": leaf["domain"], "outline": leaf["outline"]}


def _origins(leaf: FrozenLeaf, each: str, language: str | None) -> Iterator[tuple[list[Any], Passage | None, str | None]]:
    """Yield (origin, passage, text) of each draft; passage and text are None if it starts from a seed. Skip short texts."""
    if each == "seed":
        for index, seed in enumerate(leaf["seeds"]):
            yield [digest(seed), index], None, None
        return
    for passage in leaf["passages"]:
        texts = passage_sentences(passage, language) if each == "sentence" else [passage["text"]]
        for index, text in enumerate(texts):
            if len(all_words(text)) >= _SHORTEST_SENTENCE:
                yield [passage["document"], passage["start"], passage["end"], index], passage, text


def _example(seed: SeedExample, each: str, language: str | None) -> Example:
    """Prepare a seed for prompts. `support` is its context or, if rows start from sentences, the sentence that fits it best."""
    context = seed["context"]
    support = supporting_sentence(context, seed, language) if each == "sentence" and context else context
    return {"context": context, "question": seed["question"], "answer": seed["answer"], "support": support}


def supporting_sentence(context: str, seed: SeedExample, language: str | None = "English") -> str:
    """Return the sentence of a context that shares most words with a seed's question and answer; in a tie, the first."""
    wanted = set(re.findall(r"\w+", f"{seed['question']} {seed['answer']}".casefold()))
    return max(sentences(context, language), key=lambda sentence: len(wanted & set(re.findall(r"\w+", sentence.casefold()))))


async def generate(
    leaf: FrozenLeaf,
    flow: Flow,
    teacher: Teacher,
    judge_model: Teacher,
    seed: int,
    taxonomy_commit: str,
    room: asyncio.Semaphore | None = None,
    round_number: int = 0,
) -> list[GeneratedRow]:
    """Generate all candidate rows of one leaf, or those of a later round, in an order that does not depend on the models' pace.

    Each draft goes through the stages at its own pace, as many of them at once as there is `room`, which leaves may share.
    Incomplete rows and rows that a judge stopped are among them, with the reason as their `fault`. The rows have the scores of
    judges before stages, not yet those of judges of whole rows.

    Raises:
        TeacherError: a request to the teacher or the judge failed; its journal keeps earlier replies.
        FlowError: a prompt uses a variable that the rows lack.
    """
    first = first_drafts(leaf, flow, seed, round_number)
    return await continue_drafts(first, flow, teacher, judge_model, seed, taxonomy_commit, room)


async def continue_drafts(
    first: Sequence[Draft],
    flow: Flow,
    teacher: Teacher,
    judge_model: Teacher,
    seed: int,
    taxonomy_commit: str,
    room: asyncio.Semaphore | None = None,
) -> list[GeneratedRow]:
    """Generate the rows that some of a leaf's `first_drafts` lead to; see `generate`."""

    async def rows(draft: Draft) -> list[GeneratedRow]:
        drafts = await augment(draft, flow, teacher, seed)
        for stage in flow.file.stages:
            early = [judge for judge in flow.judges(early=True) if judge.before == stage.output]
            drafts = await map_each(drafts, partial(judge_early, judges=early, flow=flow, judge_model=judge_model))
            drafts = await map_each(drafts, partial(run_stage, stage=stage, flow=flow, teacher=teacher, seed=seed))
        return [record(draft, flow, teacher.identity, taxonomy_commit) for draft in drafts]

    return [row for several in await in_room(first, rows, room) for row in several]


async def map_each(items: Iterable[Any], work: Callable[[Any], Awaitable[list[Draft]]]) -> list[Draft]:
    """Work on all items concurrently, and return the drafts of all, in the order of the items."""
    return [draft for several in await asyncio.gather(*map(work, items)) for draft in several]


async def in_room(
    items: Iterable[Item], work: Callable[[Item], Coroutine[Any, Any, Done]], room: asyncio.Semaphore | None
) -> list[Done]:
    """Work on items concurrently, on as many at once as there is room, and return the outcomes in the order of the items.

    So memory holds the prompts of few drafts, however large the leaf. The first error ends the work on all items.
    """
    room, tasks = room or asyncio.Semaphore(_AT_ONCE), []
    try:
        async with asyncio.TaskGroup() as group:
            for item in items:
                await room.acquire()
                tasks.append(group.create_task(work(item)))
                tasks[-1].add_done_callback(lambda task: room.release())
                await asyncio.sleep(0)  # its requests are sent before the prompts of the next are rendered
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


async def augment(draft: Draft, flow: Flow, teacher: Teacher, seed: int) -> list[Draft]:
    """Return the draft itself and, for each augmentation, two more: one whose pairs are still to be written, and a finished
    document instruction. Later repeats make no document instruction, since they get the same form. A form that is empty or cut
    off gives only the document instruction, with a fault."""

    async def augmented(wanted: Augmentation) -> list[Draft]:
        reply = await teacher.reply(Request(flow.render(wanted.prompt, draft.variables), wanted.max_tokens))
        text = reply.text.strip()
        form = replace(draft, origin=[*draft.origin, wanted.name], augmentation=wanted.name, text=text)
        fault = reply.no_answer
        if not fault and (reply.finish == "length" or not text):
            fault = f"{wanted.name} cut off at {wanted.max_tokens} tokens" if text else f"{wanted.name} empty"
        instruction = random.Random(digest([seed, form.origin])).choice(wanted.instructions)
        columns = {"context": draft.support or "", "question": instruction, **({} if reply.no_answer else {"answer": text})}
        finished = replace(form, columns=columns, fault=fault, done=True)
        once = [finished] if draft.repeat == 0 else []  # every repeat gets the same form
        return once + ([] if fault else [form])

    return [draft, *await map_each(flow.file.augmentations, augmented)]


async def judge_early(draft: Draft, judges: Sequence[Judge], flow: Flow, judge_model: Teacher) -> list[Draft]:
    """Let the judges that come before a stage score the draft, and return the draft with their scores added.

    If a gating judge gives less than `STOPS_BELOW`, or no readable score, the draft is done: no later stage works on it. So it
    is if a judge gives no answer, which is the draft's fault then. A
    draft that is done already is returned as it is, and a judge that has scored the draft is not asked again.
    """
    scored = {each["judge"] for each in draft.scores}
    judges = [judge for judge in judges if judge.name not in scored]  # an earlier stage may have had the same output
    if draft.done or not judges:
        return [draft]
    try:
        scores = await asyncio.gather(*(score(draft.variables, judge, flow, judge_model) for judge in judges))
    except NoVerdict as error:
        return [replace(draft, fault=str(error), done=True)]
    draft = replace(draft, scores=[*draft.scores, *scores])
    for judge, found in zip(judges, scores, strict=True):
        if judge.gates and (found["score"] is None or found["score"] < STOPS_BELOW):
            return [replace(draft, fault=f"stopped by judge {judge.name}", done=True)]
    return [draft]


def with_room(stage: Stage, seeds: Sequence[SeedExample]) -> Stage:
    """Raise a stage's `max_tokens` to what the leaf's longest seed needs, within bounds; never lower it.

    Without this, a leaf that teaches letters or songs would get every reply cut off, and keep no row.
    """
    longest = max((sum(len((seed[column] or "").encode()) for column in stage.columns) for seed in seeds), default=0)
    needed = stage.several * math.ceil(longest / _BYTES_IN_TOKEN)
    most = max(stage.max_tokens, min(_MOST_TOKENS, _MOST_ROOM * stage.max_tokens))
    return stage.model_copy(update={"max_tokens": min(most, max(stage.max_tokens, needed))})


async def run_stage(draft: Draft, stage: Stage, flow: Flow, teacher: Teacher, seed: int) -> list[Draft]:
    """Sample the stage's prompt once for each temperature; return the drafts that continue this one, one for each item of each
    reply. A faulty item's draft gets the fault and is done. A draft that is done already comes back as it is."""
    if draft.done:
        return [draft]
    stage = with_room(stage, draft.leaf["seeds"])
    messages = flow.render(stage.prompt, {**draft.variables, "several": stage.several})
    requests = []
    for sample, temperature in enumerate(stage.temperatures):
        sampling = int(digest([seed, draft.origin, stage.output, sample])[:8], 16) if temperature else 0
        requests.append(Request(messages, stage.max_tokens, temperature, seed=sampling))
    replies = await asyncio.gather(*map(teacher.reply, requests))
    continued = []
    for sample, reply in enumerate(replies):
        for index, (columns, fault) in enumerate(read_reply(stage, reply)):
            origin = [*draft.origin, sample, *([index] if stage.labelled else [])]
            written = {**draft.columns, **columns}
            continued.append(replace(draft, origin=origin, columns=written, fault=fault, done=fault is not None))
    return continued


def record(draft: Draft, flow: Flow, teacher: str, taxonomy_commit: str) -> GeneratedRow:
    """Return the row of a finished draft; `teacher` is the identity of the model that wrote it."""
    leaf, passage = draft.leaf, draft.passage
    texts = {column: draft.columns.get(column) for column in ("context", "question", "answer")}
    row = {
        "id": digest([leaf["leaf"], draft.origin, texts]),
        "leaf": leaf["leaf"],
        "kind": leaf["kind"],
        **texts,
        "support": draft.support or draft.columns.get("context"),
        "document": passage and passage["document"],
        "document_commit": passage and passage["commit"],
        "span_start": passage and passage["start"],
        "span_end": passage and passage["end"],
        "taxonomy_commit": taxonomy_commit,
        "flow": flow.name,
        "flow_version": flow.file.version,
        "teacher": teacher,
        "augmentation": draft.augmentation,
        "fault": draft.fault,
        "scores": list(draft.scores),
    }
    return cast("GeneratedRow", row)  # complete: writing the table checks its columns


async def judge(
    rows: Sequence[GeneratedRow], leaf: FrozenLeaf, flow: Flow, judge_model: Teacher, room: asyncio.Semaphore | None = None
) -> list[JudgedRow]:
    """Return the rows, in their order, with the scores of all judges of whole rows added.

    As many rows are judged at once as there is `room`. Rows with a fault come back unjudged; if a judge gives no answer, that
    becomes the row's fault, so that the next refresh asks again. Document instructions are scored
    only by judges that ask for them.

    Raises:
        TeacherError: a request to the judge failed; its journal keeps earlier replies.
        FlowError: a prompt uses a variable that the rows lack.
    """
    headings = {(each["document"], each["start"], each["end"]): each["heading"] for each in leaf["passages"]}

    async def judged(row: GeneratedRow) -> JudgedRow:
        if row["fault"]:
            return row
        span = cast("tuple[str, int, int]", (row["document"], row["span_start"], row["span_end"]))
        variables = {**row, **_description(leaf), "heading": headings.get(span, "")}
        judges = [each for each in flow.judges(early=False) if each.document_instructions or not is_document_instruction(row)]
        try:
            scores = await asyncio.gather(*(score(variables, each, flow, judge_model) for each in judges))
        except NoVerdict as error:
            return {**row, "fault": str(error)}
        return {**row, "scores": [*row["scores"], *scores]}

    return await in_room(rows, judged, room)


async def score(variables: Mapping[str, object], judge: Judge, flow: Flow, judge_model: Teacher) -> JudgeScore:
    """Ask a model, as one judge, about one row, and return its score.

    An unreadable verdict is asked for again, up to `_TRIES` times in all; if none can be read, the score is None.

    Raises:
        NoVerdict: the model gave no answer.
        TeacherError: a request failed.
        FlowError: the judge's prompt uses a variable that the row lacks.
    """
    messages = flow.render(judge.prompt, variables)
    for sample in range(_TRIES):
        temperature = _RETRY_TEMPERATURE if sample else 0.0
        request = Request(messages, _VERDICT_TOKENS, temperature, seed=sample, choices=tuple(judge.choices))
        reply = await judge_model.reply(request)
        value, verdict = read_verdict(judge.choices, reply)
        if value is not None:
            break
    if reply.no_answer:
        raise NoVerdict(f"{reply.no_answer} (as judge {judge.name})")
    return {"judge": judge.name, "score": value, "verdict": verdict}
