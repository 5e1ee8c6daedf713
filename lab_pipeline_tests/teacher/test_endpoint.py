from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import math
import re
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from lab_pipeline.config.settings import SettingsError
from lab_pipeline.config.teachers import EndpointTeacherSettings
from lab_pipeline.teacher.endpoint import EndpointTeacher
from lab_pipeline.teacher.protocol import Message, Reply, Request, TeacherError
from lab_pipeline_tests.stub_endpoint import Answer, Asked, StubEndpoint, in_turn

SOON = {"Retry-After": "0.01"}


def request(content: str = "Who?", **others: Any) -> Request:
    return Request((Message("system", "Be brief."), Message("user", content)), 20, **others)


def teacher(stub: StubEndpoint, **settings: Any) -> EndpointTeacher:
    return EndpointTeacher(EndpointTeacherSettings(kind="endpoint", url=stub.url, model="small", **settings))


def ask(stub: StubEndpoint, *requests: Request, **settings: Any) -> list[Reply]:
    async def all_of_them() -> list[Reply]:
        asked = teacher(stub, **settings)
        return await asyncio.gather(*(asked.reply(each) for each in requests))

    return asyncio.run(all_of_them())


def test_a_reply_carries_text_finish_and_tokens() -> None:
    with StubEndpoint(lambda asked: Answer("Two words", finish="length")) as stub:
        assert ask(stub, request()) == [Reply("Two words", "length", prompt_tokens=3, completion_tokens=2)]


def test_the_request_is_sent_whole() -> None:
    with StubEndpoint(lambda asked: "yes") as stub:
        ask(stub, request(temperature=0.7, seed=5))
    assert stub.requests[0].path == "/v1/chat/completions"
    assert "Authorization" not in stub.requests[0].headers
    assert stub.requests[0].body == {
        "model": "small",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}],
        "max_tokens": 20,
        "temperature": 0.7,
        "seed": 5,
    }


def test_a_slash_at_the_end_of_the_url_does_not_matter() -> None:
    with StubEndpoint(lambda asked: "yes") as stub:
        slashed = EndpointTeacher(EndpointTeacherSettings(kind="endpoint", url=f"{stub.url}/", model="small"))
        assert asyncio.run(slashed.reply(request())).text == "yes"


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with StubEndpoint(lambda asked: "yes") as stub:
        monkeypatch.setenv("STUB_KEY", "s3cret")
        ask(stub, request(), api_key_env="STUB_KEY")
        assert stub.requests[0].headers["Authorization"] == "Bearer s3cret"
        monkeypatch.delenv("STUB_KEY")
        with pytest.raises(SettingsError, match=r"small at .*: api_key_env: the environment variable STUB_KEY is not set"):
            teacher(stub, api_key_env="STUB_KEY")


def test_the_key_stands_in_no_message_and_no_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_KEY", "s3cret")
    with StubEndpoint(lambda asked: Answer(status=401, body="bad key")) as stub:
        assert "s3cret" not in teacher(stub, api_key_env="STUB_KEY").identity
        with pytest.raises(TeacherError, match="HTTP 401: bad key") as error:
            ask(stub, request(), api_key_env="STUB_KEY")
        assert "s3cret" not in str(error.value)


@pytest.mark.parametrize(
    "trouble",
    [
        Answer(status=429, headers=SOON),
        Answer(status=500, headers=SOON),
        Answer(status=503, headers=SOON),
        Answer(status=529, headers=SOON),
        Answer(body='{"error": {"code": 502, "message": "upstream"}}', headers=SOON),
        Answer(body='{"error": {"code": "429", "message": "slow down"}}', headers=SOON),
        Answer(drop=True),
    ],
    ids=[
        "too many requests",
        "server error",
        "unavailable",
        "overloaded",
        "server error in a 200",
        "too many requests in a 200",
        "broken connection",
    ],
)
def test_passing_trouble_is_tried_again(trouble: Answer) -> None:
    with StubEndpoint(in_turn([trouble, "at last"])) as stub:
        assert ask(stub, request())[0].text == "at last"
    first, second = stub.requests
    assert first.body == second.body


def test_the_pause_a_server_asks_for_is_kept() -> None:
    async def timed(stub: StubEndpoint) -> float:
        started = asyncio.get_running_loop().time()
        await teacher(stub).reply(request())
        return asyncio.get_running_loop().time() - started

    with StubEndpoint(in_turn([Answer(status=429, headers={"Retry-After": "0.6"}), "at last"])) as stub:
        assert 0.6 <= asyncio.run(timed(stub)) < 3


def test_the_pause_may_be_a_date() -> None:
    past = "Wed, 21 Oct 2015 07:28:00 GMT"
    with StubEndpoint(in_turn([Answer(status=429, headers={"Retry-After": past}), "yes"])) as stub:
        assert ask(stub, request())[0].text == "yes"


def test_a_retry_date_that_is_no_number_falls_back_to_own_pauses() -> None:
    refusal = Answer(status=429, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})
    with StubEndpoint(in_turn([refusal, "at last"])) as stub:
        assert ask(stub, request())[0].text == "at last"


def test_lasting_trouble_ends_after_the_retries() -> None:
    with (
        StubEndpoint(lambda asked: Answer(status=503, headers=SOON)) as stub,
        pytest.raises(TeacherError, match=r"small at http.*: HTTP 503 \(after 3 tries\)"),
    ):
        ask(stub, request(), retries=2)
    assert len(stub.requests) == 3


def test_an_answer_that_takes_too_long_is_an_error() -> None:
    with (
        StubEndpoint(lambda asked: Answer("late", seconds=0.5)) as stub,
        pytest.raises(TeacherError, match=r"no reply within 0.1 s \(after one try\)"),
    ):
        ask(stub, request(), retries=0, timeout_seconds=0.1)


def test_a_server_that_is_not_there_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    nowhere = EndpointTeacherSettings(kind="endpoint", url=f"http://127.0.0.1:{port}/v1", model="small", retries=0)
    with pytest.raises(TeacherError, match="Cannot connect to host 127.0.0.1"):
        asyncio.run(EndpointTeacher(nowhere).reply(request()))


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_request_is_no_answer_to_it_and_the_others_go_on(status: int) -> None:
    def reply(asked: Asked) -> Answer | str:
        return Answer(status=status, body="context too long") if asked.last == "long" else "yes"

    with StubEndpoint(reply) as stub:
        refused, fine = ask(stub, request("long"), request("short"))
    assert refused.no_answer == f"the teacher gave no answer: the server refused the request: HTTP {status}: context too long"
    assert fine.text == "yes"
    assert len(stub.requests) == 2


@pytest.mark.parametrize(
    "body",
    [
        "{",
        "[]",
        "{}",
        "null",
        '{"choices": []}',
        '{"choices": [{"text": "old"}]}',
        '{"choices": ["a"]}',
        '{"choices": [{"message": {"content": "a"}}], "usage": [1]}',
    ],
)
def test_what_is_no_chat_completion_is_an_error_that_shows_it(body: str) -> None:
    with StubEndpoint(lambda asked: Answer(body=body)) as stub, pytest.raises(TeacherError) as error:
        ask(stub, request())
    assert "not a chat completion" in str(error.value) and body in str(error.value)
    assert len(stub.requests) == 1


@pytest.mark.parametrize("error", ['{"code": 402, "message": "no credit"}', '{"code": 401, "message": "no credit"}'])
def test_an_error_for_good_in_a_200_is_not_tried_again(error: str) -> None:
    body = f'{{"error": {error}}}'
    with StubEndpoint(lambda asked: Answer(body=body)) as stub, pytest.raises(TeacherError, match=r"HTTP 40[12]: .*no.credit"):
        ask(stub, request())
    assert len(stub.requests) == 1


@pytest.mark.parametrize("error", ['{"code": "filtered"}', '"filtered"'])
def test_an_error_about_the_request_in_a_200_is_no_answer_to_it(error: str) -> None:
    with StubEndpoint(lambda asked: Answer(body=f'{{"error": {error}}}')) as stub:
        assert "HTTP 400" in (ask(stub, request())[0].no_answer or "")


def test_an_error_of_null_is_none() -> None:
    body = '{"error": null, "choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}]}'
    with StubEndpoint(lambda asked: Answer(body=body)) as stub:
        assert ask(stub, request()) == [Reply("fine", "stop", 0, 0)]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(headers={"Content-Type": "text/html; charset=utf-8"}, body="<html>Sign in</html>"),
        Answer(status=307, headers={"Location": "/v2/chat/completions"}),
        Answer(status=404, body="not here", headers={"Content-Type": "text/html"}),
    ],
    ids=["sign-in page", "redirect", "page not found"],
)
def test_what_tells_of_a_wrong_url_is_said_once_naming_the_setting_and_ends_all_calls(answer: Answer) -> None:
    async def all_of_them(stub: StubEndpoint) -> list[Any]:
        asked = teacher(stub, concurrency=2)
        return await asyncio.gather(*(asked.reply(request(str(n))) for n in range(50)), return_exceptions=True)

    with StubEndpoint(lambda asked: answer) as stub:
        errors = asyncio.run(all_of_them(stub))
    assert all(isinstance(error, TeacherError) and r"set teacher.url (or judge.url)" in str(error) for error in errors)
    assert len(stub.requests) <= 2


@pytest.mark.parametrize(
    ("answer", "mend"),
    [
        (Answer(status=401, body="bad key"), "HTTP 401: bad key; check the key (api_key_env)"),
        (Answer(status=403, body="no access"), "HTTP 403: no access; check the key (api_key_env)"),
        (Answer(status=402, body="no credit"), "HTTP 402: no credit; check the key (api_key_env)"),
        (Answer(status=404, body='{"error": "no model"}'), "check teacher.model and teacher.url (or judge)"),
        (Answer(status=400, body="The model `smal` does not exist"), "The model `smal` does not exist"),
    ],
)
def test_what_every_request_would_meet_is_one_error_and_ends_all_calls(answer: Answer, mend: str) -> None:
    async def all_of_them(stub: StubEndpoint) -> list[Any]:
        asked = teacher(stub, concurrency=2)
        return await asyncio.gather(*(asked.reply(request(str(n))) for n in range(1000)), return_exceptions=True)

    with StubEndpoint(lambda asked: answer) as stub:
        errors = asyncio.run(all_of_them(stub))
    assert all(isinstance(error, TeacherError) and mend in str(error) for error in errors)
    assert len(stub.requests) <= 2


@pytest.mark.parametrize("usage", [{"prompt_tokens": None, "completion_tokens": None}, {"prompt_tokens": "many"}])
def test_unknown_token_counts_are_0(usage: dict[str, Any]) -> None:
    with StubEndpoint(lambda asked: Answer("Two words", usage=usage)) as stub:
        assert ask(stub, request()) == [Reply("Two words", "stop", 0, 0)]


def test_content_in_parts_is_joined_to_its_text() -> None:
    parts = [{"type": "thinking", "text": "Hm."}, {"type": "text", "text": "Two "}, {"type": "text", "text": "words"}]
    with StubEndpoint(lambda asked: Answer(message={"content": parts})) as stub:
        assert ask(stub, request())[0].text == "Two words"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Answer(message={"content": None, "reasoning": "The user"}, finish="length"), "spent all its tokens before it began"),
        (Answer(message={"content": None, "refusal": "I cannot help."}), "it refused: I cannot help."),
        (Answer(message={"refusal": "I cannot help."}), "it refused: I cannot help."),
        (Answer("Question: Who kee", finish="content_filter"), "a filter held it back"),
        (Answer("Question: Who kee", finish="paused"), r"there is no whole text \(finish_reason: paused\)"),
        (Answer(message={"content": None, "tool_calls": [{"id": "1"}]}, finish="tool_calls"), "it called a tool instead"),
        (Answer(message={"content": None}), r"there is no whole text \(finish_reason: stop\)"),
        (Answer(" "), "there is no whole text"),
        (Answer(message={"content": 42}), "there is no whole text"),
        (Answer(message={"content": []}), "there is no whole text"),
    ],
)
def test_an_answer_without_text_is_none_and_says_why(answer: Answer, why: str) -> None:
    with StubEndpoint(lambda asked: answer) as stub:
        (reply,) = ask(stub, request())
    assert (reply.text, reply.probabilities) == ("", {})
    assert re.match(f"the teacher gave no answer: .*{why}", reply.no_answer or "")


@pytest.mark.parametrize("finish", ["model_length", "max_tokens", "MAX_TOKENS"])
def test_a_reply_is_cut_off_by_whatever_name(finish: str) -> None:
    with StubEndpoint(lambda asked: Answer("Two", finish=finish)) as stub:
        assert ask(stub, request())[0].finish == "length"


def test_top_logprobs_of_null_are_none() -> None:
    said = '{"token": "Yes", "logprob": -0.1, "top_logprobs": null}'
    body = f'{{"choices": [{{"message": {{"content": "Yes"}}, "logprobs": {{"content": [{said}]}}}}]}}'
    with StubEndpoint(lambda asked: Answer(body=body)) as stub:
        (reply,) = ask(stub, request(choices=("Yes", "No")))
    assert (reply.text, reply.probabilities) == ("Yes", {})


def test_choices_are_scored_by_the_first_tokens_probabilities() -> None:
    alternatives = {"Yes": 0.3, " yes": 0.2, "Y": 0.1, "No": 0.1, "Maybe": 0.2, " ": 0.1}
    with StubEndpoint(lambda asked: Answer("Yes", "length", alternatives)) as stub:
        (reply,) = ask(stub, request(choices=("Yes", "No")))
    assert reply.finish == "stop"
    assert set(reply.probabilities) == {"Yes", "No"}
    assert math.isclose(reply.probabilities["Yes"], 6 / 7)
    assert math.isclose(reply.probabilities["No"], 1 / 7)
    asked = stub.requests[0].body
    assert (asked["max_tokens"], asked["logprobs"], asked["top_logprobs"]) == (20, True, 20)


def test_a_server_without_probabilities_gives_its_word_only() -> None:
    with StubEndpoint(lambda asked: "No") as stub:
        (reply,) = ask(stub, request(choices=("Yes", "No")))
    assert (reply.text, reply.probabilities) == ("No", {})


def test_alternatives_without_any_choice_give_no_probabilities() -> None:
    with StubEndpoint(lambda asked: Answer("Perhaps", probabilities={"Perhaps": 0.9})) as stub:
        assert ask(stub, request(choices=("Yes", "No")))[0].probabilities == {}


def test_a_choice_that_is_hardly_a_beginning_at_all_gives_no_probabilities() -> None:
    alternatives = {"Verdict": 0.95, "Yes": 0.04, "No": 0.01}
    with StubEndpoint(lambda asked: Answer("Verdict: No", probabilities=alternatives)) as stub:
        (reply,) = ask(stub, request(choices=("Yes", "No")))
    assert (reply.text, reply.probabilities) == ("Verdict: No", {})


def test_requests_run_at_once_up_to_the_concurrency_and_replies_find_their_requests() -> None:
    with StubEndpoint(lambda asked: Answer(asked.last.upper(), seconds=0.05)) as stub:
        replies = ask(stub, *(request(f"word {number}") for number in range(9)), concurrency=3)
    assert [reply.text for reply in replies] == [f"WORD {number}" for number in range(9)]
    assert stub.most_at_once == 3


def test_requests_are_spread_over_the_minute() -> None:
    with StubEndpoint(lambda asked: "yes") as stub:
        started = time.monotonic()
        ask(stub, *(request(str(number)) for number in range(9)), requests_per_minute=1200)
        assert time.monotonic() - started >= 8 * 60 / 1200
        assert len(stub.requests) == 9


def test_tokens_are_spread_over_the_minute_by_what_replies_took() -> None:
    """Each request is expected to take 2,000 tokens at first, and takes 10, which is known after the first reply."""
    with StubEndpoint(lambda asked: Answer("yes", usage={"prompt_tokens": 8, "completion_tokens": 2})) as stub:
        started = time.monotonic()
        long = [Request((Message("user", str(number)),), 2000) for number in range(9)]
        ask(stub, *long, tokens_per_minute=6000, concurrency=1)
        assert 0.7 <= time.monotonic() - started < 10


def test_a_rate_limit_holds_all_requests_for_the_pause_the_server_asks_for() -> None:
    """One refusal, not one for each request in flight or waiting."""
    times: list[float] = []

    def reply(asked: Asked) -> Answer | str:
        times.append(time.monotonic())
        return Answer(status=429, headers={"Retry-After": "0.5"}) if len(times) == 1 else Answer("yes", seconds=0.1)

    with StubEndpoint(reply) as stub:
        assert {reply.text for reply in ask(stub, *(request(str(number)) for number in range(6)), concurrency=2)} == {"yes"}
    assert len(times) == 7
    assert all(each - times[0] > 0.4 for each in times[2:])


def test_a_server_of_few_slots_is_not_asked_beyond_them_for_long() -> None:
    def reply(asked: Asked) -> Answer | str:
        return Answer(status=429, headers=SOON) if stub.open > 6 else Answer("yes", seconds=0.01)

    with StubEndpoint(reply) as stub:
        replies = ask(stub, *(request(str(number)) for number in range(300)), concurrency=64, retries=10)
        assert [reply.text for reply in replies] == ["yes"] * 300
        refused = len(stub.requests) - 300
    assert 0 < refused < 100
    assert stub.most_at_once <= 16


def test_latency_that_holds_lets_requests_in_flight_grow_to_the_setting() -> None:
    """A call takes far longer than a busy machine adds to it: what it adds would count as latency that rises."""
    with StubEndpoint(lambda asked: Answer("yes", seconds=0.2)) as stub:
        ask(stub, *(request(str(number)) for number in range(400)), concurrency=32)
        assert stub.most_at_once == 32


def test_requests_that_begin_alike_are_sent_together() -> None:
    passages = [f"Passage {number}." for number in range(5)]
    asked_for = [
        Request((Message("system", system), Message("user", f"{passage} Question {number}?")), 20)
        for number in range(8)
        for passage in passages
        for system in ("Write.", "Check.")
    ]
    with StubEndpoint(lambda asked: "yes") as stub:
        ask(stub, *asked_for, concurrency=1)
        log = [(asked.body["messages"][0]["content"], asked.last[:10]) for asked in stub.requests]
    assert sum(one != other for one, other in itertools.pairwise(log)) == 2 * len(passages) - 1


def test_a_server_that_is_not_there_is_one_error_for_all_requests() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    settings = EndpointTeacherSettings(kind="endpoint", url=f"http://127.0.0.1:{port}/v1", model="m", retries=1, concurrency=2)

    async def all_of_them() -> list[Any]:
        nowhere = EndpointTeacher(settings)
        return await asyncio.gather(*(nowhere.reply(request(str(n))) for n in range(500)), return_exceptions=True)

    started = time.monotonic()
    errors = asyncio.run(all_of_them())
    assert time.monotonic() - started < 5
    assert all(isinstance(error, TeacherError) and "Cannot connect to host" in str(error) for error in errors)


@pytest.mark.parametrize("url", ["localhost:8000/v1", "nothing", "http:///v1"])
def test_a_url_that_is_none_is_one_error_that_names_the_setting(url: str) -> None:
    asked = EndpointTeacher(EndpointTeacherSettings(kind="endpoint", url=url, model="m"))
    with pytest.raises(TeacherError, match=r"teacher.url \(or judge.url\): expected an http or https address"):
        asyncio.run(asyncio.wait_for(asked.reply(request()), 5))


def test_a_certificate_is_checked_against_those_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *names, *files], check=True, capture_output=True
    )
    with StubEndpoint(lambda asked: "yes") as stub:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
        stub._server.socket = context.wrap_socket(stub._server.socket, server_side=True)
        url = stub.url.replace("http:", "https:")
        settings = EndpointTeacherSettings(kind="endpoint", url=url, model="m", retries=0)
        with pytest.raises(TeacherError, match="certificate verify failed"):
            asyncio.run(EndpointTeacher(settings).reply(request()))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        assert asyncio.run(EndpointTeacher(settings).reply(request())).text == "yes"


def test_a_teacher_goes_on_in_another_event_loop_and_leaves_none_open(caplog: pytest.LogCaptureFixture) -> None:
    with StubEndpoint(lambda asked: "yes") as stub:
        asked = teacher(stub)
        assert [asyncio.run(asked.reply(request())).text for _ in range(2)] == ["yes", "yes"]
    del asked
    gc.collect()
    assert caplog.records == []


def test_connections_are_used_again() -> None:
    with StubEndpoint(lambda asked: "yes") as stub:
        ask(stub, *(request(str(number)) for number in range(20)), concurrency=1)
        assert stub.connections == 1


def test_a_key_with_a_line_end_is_sent_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_KEY", "s3cret\n")
    with StubEndpoint(lambda asked: "yes") as stub:
        ask(stub, request(), api_key_env="STUB_KEY")
        assert stub.requests[0].headers["Authorization"] == "Bearer s3cret"


def test_requests_go_through_the_proxy_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = EndpointTeacherSettings(kind="endpoint", url="http://teacher.invalid/v1", model="m", retries=0)
    with StubEndpoint(lambda asked: "yes") as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        with contextlib.suppress(TeacherError):
            asyncio.run(EndpointTeacher(settings).reply(request()))
        assert [asked.path for asked in proxy.requests] == ["http://teacher.invalid/v1/chat/completions"]
        monkeypatch.setenv("no_proxy", "teacher.invalid")
        with pytest.raises(TeacherError, match="Cannot connect to host teacher.invalid"):
            asyncio.run(EndpointTeacher(settings).reply(request()))
        assert len(proxy.requests) == 1


def test_one_failing_request_spoils_no_other() -> None:
    async def both(stub: StubEndpoint) -> list[Any]:
        asked = teacher(stub)
        return await asyncio.gather(*(asked.reply(request(word)) for word in ("bad", "good")), return_exceptions=True)

    with StubEndpoint(lambda asked: Answer(status=400) if asked.last == "bad" else "fine") as stub:
        bad, good = asyncio.run(both(stub))
    assert "HTTP 400" in bad.no_answer
    assert good.text == "fine"


def test_the_stub_listens_on_this_machine_only() -> None:
    with StubEndpoint(lambda asked: "") as stub:
        assert stub._server.server_address[0] == "127.0.0.1"
