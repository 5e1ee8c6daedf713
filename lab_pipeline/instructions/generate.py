"""Running a flow on one frozen leaf: the teacher's candidates, and the judge's scores on them."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from typing import Any

from lab_pipeline.core.rows import is_document_instruction
from lab_pipeline.core.storage import digest
from lab_pipeline.flows.flow import STOPS_BELOW, Augmentation, Flow, Judge, Stage
from lab_pipeline.instructions.replies import read_reply
from lab_pipeline.teacher.judging import read_verdict
from lab_pipeline.teacher.protocol import Request, Teacher
from lab_pipeline.text.sentences import sentences

_VERDICT_TOKENS = 8
_TRIES = 3
_RETRY_TEMPERATURE = 0.5
"""An unreadable verdict is asked for again; greedily, the reply would be the same."""

_SHORTEST_SENTENCE = 4


def starts(source: dict[str, Any], flow: Flow, seed: int) -> list[dict[str, Any]]:
    """What rows of a leaf start from: its sentences, passages or seeds, each with examples drawn from the leaf. What prompts
    know is `task`, `domain`, `outline`, `examples`, `heading`, `support` and `text`, and the columns of earlier stages; `done`
    are rows that no stage goes on with.

    All rows of one repeat share their examples, and so the beginning of their prompts: prefix caches hit.
    """
    drawn = []
    for repeat in range(flow.file.start.repeats):
        choice = random.Random(digest([seed, source["leaf"], repeat]))
        examples = choice.sample(source["seeds"], min(flow.file.start.examples, len(source["seeds"])))
        for origin in _origins(source, flow.file.start.each):
            drawn.append(
                {
                    **origin,
                    "origin": [*origin["origin"], repeat],
                    "task": source["task"],
                    "domain": source["domain"],
                    "outline": source["outline"],
                    "examples": [_example(example, flow.file.start.each) for example in examples],
                    "heading": (origin["passage"] or {}).get("heading", ""),
                    "text": origin["support"],
                    **({"answer": origin["support"]} if flow.file.start.answers else {}),
                    "augmentation": None,
                    "repeat": repeat,
                    "scores": [],
                    "fault": None,
                    "done": False,
                }
            )
    return drawn


def _origins(source: dict[str, Any], each: str) -> Iterator[dict[str, Any]]:
    if each == "seed":
        for index, seed in enumerate(source["seeds"]):
            yield {"origin": [digest(seed), index], "passage": None, "support": None}
        return
    for passage in source["passages"]:
        parts = sentences(passage["text"]) if each == "sentence" else [passage["text"]]
        for index, part in enumerate(parts):
            if len(part.split()) >= _SHORTEST_SENTENCE:
                origin = [passage["document"], passage["start"], passage["end"], index]
                yield {"origin": origin, "passage": passage, "support": part}


def _example(seed: dict[str, Any], each: str) -> dict[str, Any]:
    """A seed as prompts see it; `support` is the part of its context that a row of this flow would start from."""
    context = seed["context"]
    return {
        "context": context,
        "question": seed["question"],
        "answer": seed["answer"],
        "support": supporting_sentence(context, seed) if each == "sentence" and context else context,
    }


def supporting_sentence(context: str, seed: dict[str, Any]) -> str:
    """The sentence of a context that shares most words with a seed's question and answer."""
    wanted = set(re.findall(r"\w+", f"{seed['question']} {seed['answer']}".casefold()))
    return max(sentences(context), key=lambda part: len(wanted & set(re.findall(r"\w+", part.casefold()))))


async def generate(
    source: dict[str, Any], flow: Flow, teacher: Teacher, judge_model: Teacher, seed: int, taxonomy_commit: str
) -> list[dict[str, Any]]:
    """All candidates of one leaf under `GENERATED_SCHEMA`, in an order that does not depend on the models' pace.

    Raises:
        TeacherError: the teacher or the judge gave no reply; replies that came are in its journal.
        FlowError: a prompt asks for what the rows lack.
    """
    rows = await _each(starts(source, flow, seed), partial(_augment, flow=flow, teacher=teacher, seed=seed))
    for stage in flow.file.stages:
        early = [each for each in flow.judges(early=True) if each.before == stage.output]
        rows = await _each(rows, partial(_sieve, judges=early, flow=flow, judge_model=judge_model))
        rows = await _each(rows, partial(_grow, stage=stage, flow=flow, teacher=teacher, seed=seed))
    return [_record(row, source, flow, teacher, taxonomy_commit) for row in rows]


async def _each(rows: Iterable[Any], work: Callable[[Any], Awaitable[list[dict[str, Any]]]]) -> list[dict[str, Any]]:
    """What becomes of all rows, in their order, whichever is done first."""
    return [row for several in await asyncio.gather(*map(work, rows)) for row in several]


async def _augment(row: dict[str, Any], flow: Flow, teacher: Teacher, seed: int) -> list[dict[str, Any]]:
    """The row, and for each augmentation one to write pairs from and a finished document instruction."""

    async def forms(wanted: Augmentation) -> list[dict[str, Any]]:
        reply = await teacher.reply(Request(flow.render(wanted.prompt, row), wanted.max_tokens))
        text = reply.text.strip()
        form = {**row, "origin": [*row["origin"], wanted.name], "augmentation": wanted.name, "text": text}
        instruction = random.Random(digest([seed, form["origin"]])).choice(wanted.instructions)
        finished = {**form, "context": row["support"], "question": instruction, "answer": text, "done": True}
        if reply.no_answer:
            finished |= {"answer": None, "fault": reply.no_answer}
        elif reply.finish == "length" or not text:
            finished["fault"] = f"{wanted.name} cut off at {wanted.max_tokens} tokens" if text else f"{wanted.name} empty"
        again = row["repeat"] > 0  # the same forms as in the first repeat
        return ([] if again else [finished]) + ([] if finished["fault"] else [form])

    return [row, *await _each(flow.file.augmentations, forms)]


async def _sieve(row: dict[str, Any], judges: list[Judge], flow: Flow, judge_model: Teacher) -> list[dict[str, Any]]:
    """The row with the scores of the judges before a stage; done if one that gates found it bad."""
    if row["done"] or not judges:
        return [row]
    scores = await asyncio.gather(*(score(row, each, flow, judge_model) for each in judges))
    row = {**row, "scores": [*row["scores"], *scores]}
    for each, found in zip(judges, scores, strict=True):
        if each.gates and (found["score"] is None or found["score"] < STOPS_BELOW):
            return [{**row, "fault": f"stopped by judge {each.name}", "done": True}]
    return [row]


async def _grow(row: dict[str, Any], stage: Stage, flow: Flow, teacher: Teacher, seed: int) -> list[dict[str, Any]]:
    """The row's continuations by one stage: those of each sample, with the stage's columns or a fault."""
    if row["done"]:
        return [row]
    messages = flow.render(stage.prompt, {**row, "several": stage.several})
    replies = await asyncio.gather(
        *(
            teacher.reply(
                Request(
                    messages,
                    stage.max_tokens,
                    temperature,
                    seed=int(digest([seed, row["origin"], stage.output, sample])[:8], 16) if temperature else 0,
                )
            )
            for sample, temperature in enumerate(stage.temperatures)
        )
    )
    grown = []
    for sample, reply in enumerate(replies):
        for index, (columns, fault) in enumerate(read_reply(stage, reply)):
            origin = [*row["origin"], sample, *([index] if stage.labelled else [])]
            grown.append({**row, **columns, "origin": origin, "fault": fault, "done": fault is not None})
    return grown


def _record(row: dict[str, Any], source: dict[str, Any], flow: Flow, teacher: Teacher, taxonomy_commit: str) -> dict[str, Any]:
    passage = row["passage"] or {}
    texts = {column: row.get(column) for column in ("context", "question", "answer")}
    return {
        "id": digest([source["leaf"], row["origin"], texts]),
        "leaf": source["leaf"],
        "kind": source["kind"],
        **texts,
        "support": row["support"] or row.get("context"),
        "document": passage.get("document"),
        "document_commit": passage.get("commit"),
        "span_start": passage.get("start"),
        "span_end": passage.get("end"),
        "taxonomy_commit": taxonomy_commit,
        "flow": flow.name,
        "flow_version": flow.file.version,
        "teacher": teacher.identity,
        "augmentation": row["augmentation"],
        "fault": row["fault"],
        "scores": row["scores"],
    }


async def judge(rows: list[dict[str, Any]], source: dict[str, Any], flow: Flow, judge: Teacher) -> list[dict[str, Any]]:
    """The same rows with every judge's score, under `JUDGED_SCHEMA`; incomplete rows are not judged any more.

    Raises:
        TeacherError: the judge gave no reply; replies that came are in its journal.
    """
    headings = {(part["document"], part["start"], part["end"]): part["heading"] for part in source["passages"]}

    async def judged(row: dict[str, Any]) -> list[dict[str, Any]]:
        if row["fault"]:
            return [row]
        heading = headings.get((row["document"], row["span_start"], row["span_end"]), "")
        variables = {**row, **{name: source[name] for name in ("task", "domain", "outline")}, "heading": heading}
        asked = [each for each in flow.judges(early=False) if each.document_instructions or not is_document_instruction(row)]
        scores = await asyncio.gather(*(score(variables, each, flow, judge) for each in asked))
        return [{**row, "scores": [*row["scores"], *scores]}]

    return await _each(rows, judged)


async def score(variables: dict[str, Any], wanted: Judge, flow: Flow, judge: Teacher) -> dict[str, Any]:
    """One judge's score of one row, as `scores` holds it; a verdict that cannot be read is asked for again."""
    messages = flow.render(wanted.prompt, variables)
    for sample in range(_TRIES):
        temperature = _RETRY_TEMPERATURE if sample else 0.0
        reply = await judge.reply(Request(messages, _VERDICT_TOKENS, temperature, seed=sample, choices=tuple(wanted.choices)))
        value, verdict = read_verdict(wanted.choices, reply)
        if value is not None:
            break
    return {"judge": wanted.name, "score": value, "verdict": verdict}
