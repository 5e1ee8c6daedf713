"""Running a flow on one frozen leaf: the teacher's candidates, and the judge's scores on them."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from lab_pipeline.documents.passages import sentences
from lab_pipeline.flows.flow import Flow, Judge, Stage
from lab_pipeline.storage import digest
from lab_pipeline.teacher.protocol import Request, Teacher

GENERATED_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("leaf", pa.string()),
        ("kind", pa.string()),
        ("context", pa.string()),
        ("question", pa.string()),
        ("answer", pa.string()),
        ("support", pa.string()),
        ("document", pa.string()),
        ("document_commit", pa.string()),
        ("span_start", pa.int64()),
        ("span_end", pa.int64()),
        ("taxonomy_commit", pa.string()),
        ("flow", pa.string()),
        ("flow_version", pa.int32()),
        ("teacher", pa.string()),
        ("fault", pa.string()),
    ]
)
"""One row for each candidate. `support` is the text the teacher wrote from; `fault` says why a row is incomplete."""

JUDGED_SCHEMA = GENERATED_SCHEMA.append(
    pa.field(
        "scores",
        pa.list_(pa.struct([("judge", pa.string()), ("score", pa.float64()), ("verdict", pa.string())])),
    )
)
"""`score` is the probability of the accepted choice, `verdict` the most probable one; where none could be read, `score` is null
and `verdict` 'unreadable'. Neither depends on the flow's thresholds, which curation applies."""

_SHORTEST_SENTENCE = 4


def starts(source: dict[str, Any], flow: Flow, seed: int) -> list[dict[str, Any]]:
    """What rows of a leaf start from: its sentences, passages or seeds, each with examples drawn from the leaf.

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
    source: dict[str, Any], flow: Flow, teacher: Teacher, seed: int, taxonomy_commit: str
) -> list[dict[str, Any]]:
    """All candidates of one leaf under `GENERATED_SCHEMA`, in an order that does not depend on the teacher's pace.

    Raises:
        TeacherError: the teacher gave no reply; replies that came are in its journal.
        FlowError: a prompt asks for what the rows lack.
    """
    rows = starts(source, flow, seed)
    for stage in flow.file.stages:
        grown = await asyncio.gather(*(_grow(row, stage, flow, teacher, seed) for row in rows))
        rows = [row for several in grown for row in several]
    return [_record(row, source, flow, teacher, taxonomy_commit) for row in rows]


async def _grow(row: dict[str, Any], stage: Stage, flow: Flow, teacher: Teacher, seed: int) -> list[dict[str, Any]]:
    """The row's continuations by one stage: one for each sample, with the stage's column or a fault."""
    if row.get("fault"):
        return [row]
    messages = flow.render(stage.prompt, row)
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
        text = reply.text.strip()
        fault = None
        if stage.first_line and "\n" in text:
            text = text.split("\n", 1)[0].strip()
        elif reply.finish == "length":
            fault = f"{stage.output} cut off at {stage.max_tokens} tokens"
        if not text:
            fault = f"{stage.output} empty"
        grown.append({**row, stage.output: text, "origin": [*row["origin"], sample], "fault": fault})
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
        "fault": row["fault"],
    }


async def judge(rows: list[dict[str, Any]], source: dict[str, Any], flow: Flow, judge: Teacher) -> list[dict[str, Any]]:
    """The same rows with every judge's score, under `JUDGED_SCHEMA`; incomplete rows are not judged.

    Raises:
        TeacherError: the judge gave no reply; replies that came are in its journal.
    """

    async def judged(row: dict[str, Any]) -> dict[str, Any]:
        if row["fault"]:
            return {**row, "scores": []}
        variables = {**row, "task": source["task"], "domain": source["domain"], "outline": source["outline"]}
        scores = await asyncio.gather(*(_score(variables, each, flow, judge) for each in flow.file.judges))
        return {**row, "scores": list(scores)}

    return list(await asyncio.gather(*(judged(row) for row in rows)))


async def _score(variables: dict[str, Any], wanted: Judge, flow: Flow, judge: Teacher) -> dict[str, Any]:
    request = Request(flow.render(wanted.prompt, variables), max_tokens=8, choices=wanted.choices)
    reply = await judge.reply(request)
    if reply.probabilities:
        verdict = max(reply.probabilities, key=reply.probabilities.__getitem__)
        return {"judge": wanted.name, "score": reply.probabilities.get(wanted.accept, 0.0), "verdict": verdict}
    said = [choice for choice in wanted.choices if reply.text.strip().casefold().startswith(choice.casefold())]
    if not said:
        return {"judge": wanted.name, "score": None, "verdict": "unreadable"}
    return {"judge": wanted.name, "score": float(said[0] == wanted.accept), "verdict": said[0]}
