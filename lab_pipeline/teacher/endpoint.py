"""Ask a teacher or judge behind an OpenAI-compatible server: vLLM, llama.cpp, TGI or a hosted API."""

from __future__ import annotations

import asyncio
import math
import os
import re
from dataclasses import asdict, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from lab_pipeline.config.settings import EndpointTeacherSettings, SettingsError
from lab_pipeline.core.storage import read_json, write_json
from lab_pipeline.teacher.dialect import Dialect, endpoint_identity
from lab_pipeline.teacher.protocol import NO_ANSWER, Reply, Request, TeacherError, token_count

_LEAST_MASS = 0.1
"""If all choices together have less probability than this at the first token, the reply's text is read instead."""
_RETRYABLE = {408, 409, 425, 429}
"""HTTP statuses after which a request is tried again, beside all from 500 on: gateways use codes such as 524 and 529."""
_ABOUT_THE_REQUEST = {400, 404, 413, 422}
"""HTTP statuses with which servers refuse what a request asks for: too long, filtered, a field that they do not know."""
_WHOLE = {None, "", "stop", "eos", "eos_token", "end_turn", "stop_sequence"}
"""What servers call the finish of a reply that the model ended itself; some say nothing."""
_CUT_OFF = {"length", "model_length", "max_tokens"}
"""What servers call the finish of a reply that was cut off at the maximum number of tokens."""
_FILTERED = "content_filter"


class _Retryable(Exception):
    """A failed try of a request that may be repeated, after `after_seconds` if the server named a time."""

    def __init__(self, message: str, after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.after_seconds = after_seconds


def _wait(state: RetryCallState) -> float:
    """Return the wait in s: the server's `Retry-After`, at most 120, or exponential back-off with full jitter, at most 30."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, _Retryable) and error.after_seconds is not None:
        return min(error.after_seconds, 120)
    return wait_random_exponential(multiplier=0.5, max=30)(state)


def _cause(state: RetryCallState) -> str:
    """Return why a try failed, in a word or two that many failures share: 'HTTP 429', 'ReadTimeout'."""
    words = str(state.outcome.exception() if state.outcome else "").split()
    return " ".join(words[:2] if words[:1] == ["HTTP"] else words[:1])


class EndpointTeacher:
    """A teacher or judge that answers at a server's `/chat/completions`, up to `concurrency` requests at once.

    A request that meets a rate limit, server error, time-out or broken connection is tried again up to `retries` times.
    If it still fails, or if the server refuses all requests (a wrong key, URL or model), `reply` raises `TeacherError`. If the
    model gives no answer, for example because it refuses, or the server refuses this one request, because it is too long for
    example, that is no error: `Reply.no_answer` says why. What the server does not take of a request is learned (`Dialect`).

    Args:
        learned: JSON file in which the dialect is remembered; None to learn it anew.

    Raises:
        SettingsError: the environment variable that should hold the key is not set.
    """

    def __init__(
        self,
        settings: EndpointTeacherSettings,
        transport: httpx.AsyncBaseTransport | None = None,
        learned: Path | None = None,
    ) -> None:
        self.settings = settings
        self.identity = endpoint_identity(settings)
        self._learned = learned
        self.dialect = _read_dialect(settings, learned)
        headers = {}
        if settings.api_key_env:
            key = os.environ.get(settings.api_key_env)
            if not key:
                raise SettingsError(f"{self.identity}: api_key_env: the environment variable {settings.api_key_env} is not set")
            headers["Authorization"] = f"Bearer {key}"
        self._client = httpx.AsyncClient(
            base_url=settings.url.rstrip("/"), headers=headers, timeout=settings.timeout_seconds, transport=transport
        )
        self._in_flight = asyncio.Semaphore(settings.concurrency)
        self._gap = 60 / settings.requests_per_minute if settings.requests_per_minute else 0.0
        self._next = 0.0
        """When the next request may be sent, in the event loop's time."""
        self._useless: TeacherError | None = None
        """Error of the first request that found key, URL or model to be wrong; later ones are not sent, and raise it too."""

    async def reply(self, request: Request) -> Reply:
        async with self._in_flight:
            if self._useless:
                raise self._useless
            causes: list[str] = []
            retrying = AsyncRetrying(
                retry=retry_if_exception_type(_Retryable),
                wait=_wait,
                stop=stop_after_attempt(self.settings.retries + 1),
                before_sleep=lambda state: causes.append(_cause(state)),
                reraise=True,
            )
            try:
                reply: Reply = await retrying(self._ask, request)
                return replace(reply, retries=tuple(causes)) if causes else reply
            except _Retryable as error:
                raise TeacherError(f"{self.identity}: {error} (after {self.settings.retries + 1} tries)") from None

    async def _ask(self, request: Request) -> Reply:
        while True:
            dialect = self.dialect
            body = dialect.body(self.settings.model, request, self.settings.reasoning_tokens)
            await self._keep_pace()
            try:
                response = await self._client.post("/chat/completions", json=body)
            except httpx.TransportError as error:
                raise _Retryable(f"{type(error).__name__} {error}".strip()) from None
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
                return self._read(request, completion)
            except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
                raise TeacherError(f"{self.identity}: not a chat completion: {error!r} in {response.text[:300]}") from None

    async def _keep_pace(self) -> None:
        """Wait until a request may be sent: requests are spread evenly over the minute, tries that failed included."""
        now = asyncio.get_running_loop().time()
        self._next = max(now, self._next + self._gap)
        await asyncio.sleep(self._next - now)

    def _learn(self, dialect: Dialect) -> None:
        self.dialect = dialect
        if self._learned:
            write_json(self._learned, {**asdict(dialect), "omitted": sorted(dialect.omitted), "identity": self.identity})

    def _check(self, status: int, response: httpx.Response) -> None:
        """Raise `_Retryable` or `TeacherError` for a failed request, a redirect or a web page; otherwise do nothing.

        What all later requests would meet as well, such as a wrong key, is kept as `_useless`, so that none is sent.
        """
        if status in _RETRYABLE or status >= 500:
            raise _Retryable(f"HTTP {status}", _seconds(response.headers.get("retry-after", "")))
        page = response.headers.get("content-type", "").startswith("text/html")
        if status >= 400 and not page:
            mend = "check teacher.model and teacher.url (or judge)" if status == 404 else "check the key (api_key_env)"
            self._useless = TeacherError(f"{self.identity}: HTTP {status}: {response.text[:300]}; {mend}")
        elif page or status >= 300:
            found = "a web page, such as one to sign in" if page else f"a redirect to {response.headers.get('location')}"
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


def _read_dialect(settings: EndpointTeacherSettings, learned: Path | None) -> Dialect:
    known = read_json(learned) if learned and learned.exists() else {}
    known = {name: value for name, value in known.items() if name not in ("identity", "omitted", "extra")} | {
        "omitted": frozenset(known.get("omitted", ())) | frozenset(settings.omit)
    }
    return Dialect(**known, extra=settings.extra_body)


def _outcome(response: httpx.Response) -> tuple[int, Any]:
    """Return the HTTP status and the JSON of a response. Some servers state an error, with its status, in a 200 response."""
    try:
        completion = response.json()
    except ValueError:
        return response.status_code, None
    error = completion.get("error") if isinstance(completion, dict) else None
    if response.status_code >= 300 or not error:
        return response.status_code, completion
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
