"""Ask a teacher or judge behind an OpenAI-compatible server: vLLM, llama.cpp, TGI or a hosted API."""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import re
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx

from lab_pipeline.config.settings import SettingsError
from lab_pipeline.config.teachers import EndpointTeacherSettings
from lab_pipeline.core.storage import read_json, write_json
from lab_pipeline.teacher.dialect import Dialect, endpoint_identity
from lab_pipeline.teacher.pace import PerMinute, Turns
from lab_pipeline.teacher.protocol import NO_ANSWER, Reply, Request, TeacherError, token_count
from lab_pipeline.teacher.slots import Slots

_LEAST_MASS = 0.1
"""If all choices together have less probability than this at the first token, the reply's text is read instead."""
_RETRYABLE = {408, 409, 425, 429}
"""HTTP statuses after which a request is tried again, beside all from 500 on: gateways use codes such as 524 and 529."""
_OVERLOADED = {429, 503, 529}
"""HTTP statuses that say that the server has too many requests."""
_LONGEST_PAUSE = 120.0
"""Most seconds for which a server's `Retry-After` is heeded."""
_CHARACTERS_IN_TOKEN = 4
"""Estimate for English texts."""
_ABOUT_THE_REQUEST = {400, 404, 413, 422}
"""HTTP statuses with which servers refuse what a request asks for: too long, filtered, a field that they do not know."""
_WHOLE = {None, "", "stop", "eos", "eos_token", "end_turn", "stop_sequence"}
"""What servers call the finish of a reply that the model ended itself; some say nothing."""
_CUT_OFF = {"length", "model_length", "max_tokens"}
"""What servers call the finish of a reply that was cut off at the maximum number of tokens."""
_FILTERED = "content_filter"


@dataclass(frozen=True)
class _Response:
    status: int
    headers: Mapping[str, str]
    text: str
    sent_in: int
    """The in-flight limit's round when the request was sent. The response took `seconds`."""
    seconds: float


class _Retryable(Exception):
    """A failed try of a request that may be repeated, after `after_seconds` if the server named a time."""

    def __init__(self, message: str, after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.after_seconds = after_seconds


def _cause(error: _Retryable) -> str:
    """Return why a try failed, in a word or two that many failures share: 'HTTP 429', 'TimeoutError'."""
    words = str(error).split()
    return " ".join(words[:2] if words[:1] == ["HTTP"] else words[:1])


class EndpointTeacher:
    """A teacher or judge that answers at a server's `/chat/completions`, up to `concurrency` requests at once.

    How many requests the server bears at once is found out, and requests with the same beginning are sent together (see
    `Turns`). A request that meets a rate limit, server error, time-out or broken connection is tried again up to `retries`
    times. If it still fails, or if the server refuses all requests (a wrong key, URL or model), `reply` raises `TeacherError`.
    If the model gives no answer, for example because it refuses, or the server refuses this one request, because it is too
    long for example, that is no error: `Reply.no_answer` says why. What the server does not take of a request is learned
    (`Dialect`).

    Args:
        learned: JSON file in which the dialect is remembered; None to learn it anew.
        slots: Folder by which processes keep to `concurrency` together (see `Slots`); None counts this process's only.

    Raises:
        SettingsError: the environment variable that should hold the key is not set.
    """

    def __init__(self, settings: EndpointTeacherSettings, learned: Path | None = None, slots: Path | None = None) -> None:
        self.settings = settings
        self.identity = endpoint_identity(settings)
        self._learned = learned
        self.dialect = _read_dialect(settings, learned)
        self._url = f"{settings.url.rstrip('/')}/chat/completions"
        self._headers = {"Content-Type": "application/json"}
        if settings.api_key_env:
            key = os.environ.get(settings.api_key_env, "").strip()
            if not key:
                raise SettingsError(f"{self.identity}: api_key_env: the environment variable {settings.api_key_env} is not set")
            self._headers["Authorization"] = f"Bearer {key}"
        self._client: aiohttp.ClientSession | None = None
        self._turns = Turns(settings.concurrency, Slots(slots, settings.concurrency) if slots else None)
        self._requests, self._tokens = PerMinute(settings.requests_per_minute), PerMinute(settings.tokens_per_minute)
        self._usual_tokens: dict[int, float] = {}
        """Mean number of tokens that replies to requests with this `max_tokens` have."""
        self._useless: TeacherError | None = None
        """Error of the first request that found key, URL or model to be wrong; later ones are not sent, and raise it too."""
        self._replied = False

    async def reply(self, request: Request) -> Reply:
        causes: list[str] = []
        at_once = await self._turns.take(tuple(message.content for message in request.messages))
        try:
            while True:
                try:
                    reply = await self._ask(request, at_once)
                    return replace(reply, retries=tuple(causes)) if causes else reply
                except _Retryable as error:
                    if len(causes) == self.settings.retries:
                        raise
                    await asyncio.sleep(_pause(error, len(causes)))
                    causes.append(_cause(error))
        except _Retryable as error:
            tries = f"{self.settings.retries + 1} tries" if self.settings.retries else "one try"
            failed = TeacherError(f"{self.identity}: {error} (after {tries})")
            if isinstance(error.__cause__, aiohttp.ClientConnectorError) and not self._replied:
                self._useless = failed  # nobody is there: more requests would only wait as long
            raise failed from None
        finally:
            self._turns.give_back()

    async def _ask(self, request: Request, at_once: int) -> Reply:
        while True:
            if self._useless:
                raise self._useless
            dialect = self.dialect
            body = dialect.body(self.settings.model, request, self.settings.reasoning_tokens)
            expected = self._expected_tokens(request)
            response = await self._send(body, expected)
            status, completion = _outcome(response)
            if status in _ABOUT_THE_REQUEST:
                if self.dialect is not dialect:  # learned from another request meanwhile
                    continue
                if other := dialect.after(response.text, body):
                    self._learn(other)
                    continue
                if not _is_unknown_model(status, response.text):
                    refused = f"{NO_ANSWER}: the server refused the request: HTTP {status}: {response.text[:200]}"
                    return Reply("", "stop", 0, 0, no_answer=refused)
            self._check(status, response)
            try:
                reply = self._read(request, completion)
            except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
                raise TeacherError(f"{self.identity}: not a chat completion: {error!r} in {response.text[:300]}") from None
            self._keep_in_mind(request, reply, expected)
            if self._turns.crowded:  # else the limit is not put to the test
                self._turns.limit.replied(response.sent_in, at_once, request.max_tokens, response.seconds)
            return reply

    async def _send(self, body: dict[str, Any], expected_tokens: float) -> _Response:
        if wait := max(self._requests.wait(), self._tokens.wait(expected_tokens)):
            await asyncio.sleep(wait)
        sent_in, started = self._turns.limit.round, time.monotonic()
        try:
            async with self._opened().post(self._url, data=json.dumps(body).encode(), allow_redirects=False) as response:
                text = (await response.read()).decode(errors="replace")
        except TimeoutError as error:
            self._turns.limit.refused(sent_in)
            raise _Retryable(f"no reply within {self.settings.timeout_seconds:g} s") from error
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            self._useless = TeacherError(f"{self.identity}: teacher.url (or judge.url): expected an http or https address")
            raise self._useless from None
        except aiohttp.ClientError as error:
            raise _Retryable(str(error) or type(error).__name__) from error
        return _Response(response.status, response.headers, text, sent_in, time.monotonic() - started)

    def _opened(self) -> aiohttp.ClientSession:
        """Return the client of the running event loop, which closes with the loop."""
        if self._client is None or self._client.closed:
            self._client = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0,
                    keepalive_timeout=4,  # servers on uvicorn, such as vLLM, hang up after 5 s
                    ssl=httpx.create_ssl_context(),  # the certificates that `doctor` trusts
                ),
                headers=self._headers,
                proxy=_proxy(self._url),
                timeout=aiohttp.ClientTimeout(total=self.settings.timeout_seconds),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
            self._closing = asyncio.create_task(_close_with_loop(self._client))
        return self._client

    def _expected_tokens(self, request: Request) -> float:
        """Estimate what a request will count for in the tokens per minute, before the server says it."""
        longest = request.max_tokens + self.settings.reasoning_tokens
        written = sum(len(message.content) for message in request.messages)
        return written / _CHARACTERS_IN_TOKEN + self._usual_tokens.get(request.max_tokens, longest)

    def _keep_in_mind(self, request: Request, reply: Reply, expected_tokens: float) -> None:
        """Correct by a reply what is expected of later ones."""
        self._replied = True
        if reply.completion_tokens:  # else the server does not count them
            self._tokens.correct(reply.prompt_tokens + reply.completion_tokens - expected_tokens)
            usual = self._usual_tokens.setdefault(request.max_tokens, reply.completion_tokens)
            self._usual_tokens[request.max_tokens] = 0.9 * usual + 0.1 * reply.completion_tokens

    def _learn(self, dialect: Dialect) -> None:
        self.dialect = dialect
        if self._learned:
            write_json(self._learned, {**asdict(dialect), "omitted": sorted(dialect.omitted), "identity": self.identity})

    def _check(self, status: int, response: _Response) -> None:
        """Raise `_Retryable` or `TeacherError` for a failed request, a redirect or a web page; otherwise do nothing.

        What all later requests would meet as well, such as a wrong key, is kept as `_useless`, so that none is sent.
        """
        if status in _OVERLOADED:
            self._turns.limit.refused(response.sent_in)
        if status in _RETRYABLE or status >= 500:
            after = _seconds(response.headers.get("Retry-After", ""))
            if after and status == 429:  # it is about all requests
                self._requests.pause(min(after, _LONGEST_PAUSE))
            raise _Retryable(f"HTTP {status}", after)
        page = response.headers.get("Content-Type", "").startswith("text/html")
        if status >= 400 and not page:
            mend = "check teacher.model and teacher.url (or judge)" if status == 404 else "check the key (api_key_env)"
            self._useless = TeacherError(f"{self.identity}: HTTP {status}: {response.text[:300]}; {mend}")
        elif page or status >= 300:
            found = "a web page, such as one to sign in" if page else f"a redirect to {response.headers.get('Location')}"
            self._useless = TeacherError(
                f"{self.identity}: the server answered with {found}, not with a chat completion; set teacher.url (or "
                "judge.url) to the address below which /chat/completions answers, as in https://api.example.org/v1"
            )
        if self._useless:
            raise self._useless

    def _read(self, request: Request, completion: Any) -> Reply:
        choice = completion["choices"][0]
        usage = completion.get("usage") or {}
        message, finish = choice["message"], choice.get("finish_reason")
        finish = finish.casefold() if isinstance(finish, str) else finish
        cut_off = finish in _CUT_OFF and not request.choices
        prompt, completion = (token_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens"))
        reply = Reply(
            text=_text(message.get("content")),
            finish="length" if cut_off else "stop",
            prompt_tokens=prompt,
            completion_tokens=completion,
            probabilities=_probabilities(request.choices, choice.get("logprobs")),
            money=(prompt * self.settings.prompt_price + completion * self.settings.completion_price) / 1_000_000,
            cached_tokens=_detail(usage, "prompt_tokens_details", "cached_tokens"),
            reasoning_tokens=_detail(usage, "completion_tokens_details", "reasoning_tokens"),
        )
        if reply.says_something and finish in _WHOLE | _CUT_OFF:
            return reply
        return replace(reply, text="", probabilities={}, no_answer=f"{NO_ANSWER}: {_why_none(message, finish)}")


def _pause(error: _Retryable, tries: int) -> float:
    """Return the seconds until the next try: the server's `Retry-After`, or exponential back-off with full jitter."""
    if error.after_seconds is not None:
        return min(error.after_seconds, _LONGEST_PAUSE)
    return random.uniform(0, min(30.0, 0.5 * 2**tries))


async def _close_with_loop(client: aiohttp.ClientSession) -> None:
    """Wait until the event loop ends, which cancels its tasks, and close the client."""
    try:
        await asyncio.Event().wait()
    finally:
        await client.close()


def _proxy(url: str) -> str | None:
    """Return the proxy that the environment (`HTTPS_PROXY`, `NO_PROXY` and the like) names for a URL."""
    parts, proxies = urlsplit(url), urllib.request.getproxies()
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return proxies.get(parts.scheme) or proxies.get("all")


def _read_dialect(settings: EndpointTeacherSettings, learned: Path | None) -> Dialect:
    known = read_json(learned) if learned and learned.exists() else {}
    known = {name: value for name, value in known.items() if name not in ("identity", "omitted", "extra")} | {
        "omitted": frozenset(known.get("omitted", ())) | frozenset(settings.omit)
    }
    return Dialect(**known, extra=settings.extra_body)


def _outcome(response: _Response) -> tuple[int, Any]:
    """Return the HTTP status and the JSON of a response. Some servers state an error, with its status, in a 200 response."""
    try:
        completion = json.loads(response.text)
    except ValueError:
        return response.status, None
    error = completion.get("error") if isinstance(completion, dict) else None
    if response.status >= 300 or not error:
        return response.status, completion
    code = str(error.get("code")) if isinstance(error, dict) else ""
    return int(code) if code.isdigit() and int(code) >= 400 else 400, completion


def _is_unknown_model(status: int, text: str) -> bool:
    """Tell whether a refusal is about the model's name or the path, and so meets every request."""
    return status == 404 or bool(
        re.search(r"model\W.{0,80}(?:not exist|not found|unknown)|(?:unknown|no such) model", text, re.I)
    )


def _seconds(after: str) -> float | None:
    """Return the wait that a `Retry-After` header asks for, in seconds or as a date; None if it cannot be read."""
    if after.replace(".", "", 1).isdigit():
        return float(after)
    try:
        return max((parsedate_to_datetime(after) - datetime.now(UTC)).total_seconds(), 0.0)
    except (TypeError, ValueError):
        return None


def _detail(usage: Any, details: str, name: str) -> int:
    """Return a part of the tokens that a server states under `usage`; 0 if it states none."""
    return token_count((usage.get(details) or {}).get(name))


def _text(content: Any) -> str:
    """Return the text of a message's content: a string, or the joined text parts of a list; '' if there is no text."""
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        return "".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def _why_none(message: Any, finish: str | None) -> str:
    if message.get("refusal"):
        return f"it refused: {str(message['refusal'])[:300]}"
    if finish in _CUT_OFF:
        return "it spent all its tokens before it began to answer"
    if message.get("tool_calls"):
        return "it called a tool instead"
    return "a filter held it back" if finish == _FILTERED else f"there is no whole text (finish_reason: {finish})"


def _probabilities(choices: tuple[str, ...], logprobs: Any) -> dict[str, float]:
    """Return the probability of each choice, normalised over the choices, from the alternatives to the reply's first token.

    An alternative counts for each choice that begins with it. The result is empty if the request has no choices, if the server
    states no probabilities, or if all choices together have less than `_LEAST_MASS`: the reply's text then says more.
    """
    if not choices or not logprobs or not logprobs.get("content"):
        return {}
    mass = dict.fromkeys(choices, 0.0)
    for alternative in logprobs["content"][0].get("top_logprobs") or []:
        token = alternative["token"].strip().casefold()
        for choice in choices:
            if token and choice.casefold().startswith(token):
                mass[choice] += math.exp(alternative["logprob"])
    total = sum(mass.values())
    return {choice: value / total for choice, value in mass.items()} if total >= _LEAST_MASS else {}
