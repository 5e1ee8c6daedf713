"""A teacher of whose replies 30 % are faulty in every known way: each row is answered or accounted for, and heals later."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import pytest

from lab_pipeline.config.teachers import EndpointTeacherSettings
from lab_pipeline.core.storage import read_rows
from lab_pipeline.taxonomy.leaf import Kind
from lab_pipeline.teacher.endpoint import EndpointTeacher
from lab_pipeline.teacher.protocol import NO_ANSWER, Message, Request
from lab_pipeline_tests.builders import KNOWLEDGE, edit_yaml
from lab_pipeline_tests.instructions.leaf_lab import Lab, Outcome
from lab_pipeline_tests.scripted_teacher import copying
from lab_pipeline_tests.stub_endpoint import Answer, Asked, StubEndpoint

SOON = {"Retry-After": "0.01"}
PASSING = [
    Answer(status=429, headers=SOON),
    Answer(status=500, headers=SOON),
    Answer(status=529, headers=SOON),
    Answer(status=524, headers=SOON),
    Answer(body='{"error": {"code": 502, "message": "upstream"}}', headers=SOON),
    Answer(drop=True),
]
"""Faults that the next try does not meet."""
LASTING = [
    Answer(status=400, body="the prompt is too long"),
    Answer(message={"content": None, "reasoning": "The user wants"}, finish="length"),
    Answer(message={"content": None, "refusal": "I cannot help with that."}),
    Answer("What is i", finish="content_filter"),
    Answer("What is i", finish="paused"),
    Answer(message={"content": [{"type": "image"}]}),
    Answer(body='{"error": {"message": "the prompt was filtered"}}'),
]
"""Faults that a request meets at each try."""


def good(asked: Asked) -> Answer:
    messages = tuple(Message(**message) for message in asked.body["messages"])
    said = copying(Request(messages, asked.body["max_tokens"], asked.body["temperature"], asked.body["seed"]))
    assert isinstance(said, str)
    return Answer(said)


def chaotic() -> Callable[[Asked], Answer]:
    """Of 20 requests, one meets a lasting fault, and five meet a passing one at their first try."""
    lasting, passing, numbers = itertools.cycle(LASTING), itertools.cycle(PASSING), itertools.count()
    fate: dict[str, Answer | None] = {}

    def reply(asked: Asked) -> Answer:
        key = json.dumps(asked.body, sort_keys=True)
        if key not in fate:
            number = next(numbers) % 20
            fate[key] = next(lasting) if number == 3 else None
            if number in (1, 5, 8, 12, 17):
                return next(passing)
        return fate[key] or good(asked)

    return reply


def refreshed(lab: Lab, stub: StubEndpoint) -> Outcome:
    endpoint = EndpointTeacherSettings(kind="endpoint", url=stub.url, model="strong", concurrency=4, retries=2)
    lab.teacher = EndpointTeacher(endpoint)  # type: ignore[assignment]
    return lab.refresh()


@pytest.mark.timeout(120)
def test_every_row_is_answered_or_accounted_for_and_heals_with_new_calls_only_for_it(lab: Lab, tmp_path) -> None:
    for kind in get_args(Kind):
        edit_yaml(lab.flow.parent / f"simple_{kind}" / "flow.yaml", lambda file: file["start"].update(repeats=6))
    with StubEndpoint(good) as stub:
        undisturbed = lab.elsewhere(tmp_path / "undisturbed")
        wanted = refreshed(undisturbed, stub).states
        expected = len(stub.requests)

        stub.requests.clear()
        stub.reply = chaotic()
        found = refreshed(lab, stub)
        assert not found.failures
        lost: Counter[str] = Counter()
        for leaf, plan in lab.plans().items():
            rows = read_rows(plan.path(lab.home, "generated"))
            faults = [row["fault"] for row in rows if (row["fault"] or "").startswith(NO_ANSWER)]
            assert found.states[leaf].funnel.get("no_reply", 0) == len(faults) < len(rows) / 2
            assert sum(found.states[leaf].funnel.values()) == 2 * found.states[leaf].funnel["generated"]
            lost.update(faults)
        assert sum(lost.values()) >= 5 and len(lost) >= 4, "faults of many causes, each told"

        stub.requests.clear()
        stub.reply = good
        healed = refreshed(lab, stub).states
    assert len(stub.requests) <= expected * 0.3, "only what was lost is asked again"
    assert {leaf: state.funnel for leaf, state in healed.items()} == {leaf: state.funnel for leaf, state in wanted.items()}
    assert lab.tables(KNOWLEDGE)["curated"] == undisturbed.tables(KNOWLEDGE)["curated"]


def test_the_same_request_is_not_sent_for_ever(lab: Lab) -> None:
    with StubEndpoint(lambda asked: replace(PASSING[0])) as stub:
        outcome = refreshed(lab, stub)
    assert len(outcome.failures) == 3 and all("HTTP 429 (after 3 tries)" in each.error for each in outcome.failures.values())
