"""What servers refuse, as public reports describe it, and what is sent instead."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab_pipeline.config.teachers import EndpointTeacherSettings
from lab_pipeline.teacher.dialect import Dialect, endpoint_identity
from lab_pipeline.teacher.endpoint import EndpointTeacher
from lab_pipeline.teacher.protocol import Message, Request
from lab_pipeline_tests.stub_endpoint import Answer, Asked, StubEndpoint

REQUEST = Request((Message("user", "Is it?"),), 20, temperature=0.7, seed=5)
JUDGED = Request((Message("user", "Is it?"),), 1, choices=("Yes", "No"))


def refusing(status: int, error: Any, refused: Callable[[dict[str, Any]], bool]) -> Callable[[Asked], Answer | str]:
    """A server that refuses requests with an error, and answers the others."""
    return lambda asked: Answer(status=status, body=json.dumps(error)) if refused(asked.body) else "Yes"


STRICT = {
    "length": (
        400,
        {"error": {"message": "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."}},
        lambda body: "max_tokens" in body,
        "max_completion_tokens for the length",
    ),
    "temperature": (
        400,
        {"error": {"message": "Unsupported value: 'temperature' does not support 0.7. Only the default (1) is supported."}},
        lambda body: "temperature" in body,
        "without temperature",
    ),
    "temperature of 0": (
        422,
        {"error": "Input validation error: `temperature` must be strictly positive"},
        lambda body: body.get("temperature") == 0,
        "a temperature of 0.01 for 0",
    ),
    "seed": (
        422,
        {"detail": [{"loc": ["body", "seed"], "type": "extra_forbidden", "msg": "Extra inputs are not permitted"}]},
        lambda body: "seed" in body,
        "without seed",
    ),
    "log-probabilities": (
        400,
        {"error": {"message": "logprobs is not supported with this model"}},
        lambda body: "logprobs" in body,
        "without logprobs",
    ),
    "many log-probabilities": (
        422,
        {"error": {"message": "top_logprobs must be <= 5"}},
        lambda body: body.get("top_logprobs", 0) > 5,
        "5 log-probabilities",
    ),
    "all at once": (
        400,
        {"error": {"message": "unknown field: max_completion_tokens wanted; seed, temperature, logprobs not permitted"}},
        lambda body: bool(body.keys() & {"max_tokens", "seed", "temperature", "logprobs"}),
        "max_completion_tokens for the length, without logprobs, seed, temperature",
    ),
}


@pytest.mark.parametrize("strict", STRICT)
def test_what_a_server_refuses_is_learned_once_and_remembered(strict: str, tmp_path: Path) -> None:
    status, error, refused, said = STRICT[strict]
    learned = tmp_path / "learned.json"

    def ask(stub: StubEndpoint) -> tuple[list[str], str]:
        async def all_of_them() -> list[str]:
            replies = await asyncio.gather(*(teacher.reply(each) for each in (REQUEST, JUDGED) * 20))
            assert not [reply for reply in replies if reply.no_answer]
            return [reply.text for reply in replies]

        settings = EndpointTeacherSettings(kind="endpoint", url=stub.url, model="small", concurrency=1)
        teacher = EndpointTeacher(settings, learned=learned)
        return asyncio.run(all_of_them()), str(teacher.dialect)

    with StubEndpoint(refusing(status, error, refused)) as stub:
        assert ask(stub) == (["Yes"] * 40, said)
        first = len(stub.requests)
        assert first <= 44
        assert ask(stub) == (["Yes"] * 40, said)
        assert len(stub.requests) == first + 40, "remembered"


@pytest.mark.parametrize(
    "refusal",
    [
        "max_tokens is too large: 4096. This model supports at most 2048 completion tokens, and the prompt has 90",
        "This model's maximum context length is 4096 tokens; you asked for 5000 (max_tokens 20)",
        "the prompt was filtered",
        "",
    ],
)
def test_a_refusal_that_is_about_no_field_teaches_nothing(refusal: str) -> None:
    assert Dialect().after(refusal, Dialect().body("small", JUDGED)) is None


def test_a_field_that_the_settings_add_stays() -> None:
    dialect = Dialect(extra={"temperature": 1})
    body = dialect.body("small", REQUEST)
    assert body["temperature"] == 1
    assert dialect.after("temperature is not supported", body) is None


def test_room_for_reasoning_is_added_to_the_length() -> None:
    assert Dialect().body("small", REQUEST, 500)["max_tokens"] == 520


def test_settings_omit_fields_and_add_some_which_make_another_teacher() -> None:
    extra = {"chat_template_kwargs": {"enable_thinking": False}}
    settings = EndpointTeacherSettings(kind="endpoint", url="http://x/v1", model="m", omit=["seed"], extra_body=extra)
    body = EndpointTeacher(settings).dialect.body("m", REQUEST)
    assert "seed" not in body and body["chat_template_kwargs"] == {"enable_thinking": False}
    plain = settings.model_copy(update={"extra_body": {}})
    assert endpoint_identity(plain) == "m at http://x/v1"
    assert endpoint_identity(settings) != endpoint_identity(plain)
