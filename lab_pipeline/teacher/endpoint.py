"""Ask a teacher or judge behind an OpenAI-compatible server: vLLM, llama.cpp, TGI or a hosted API."""

from __future__ import annotations

import asyncio
import math
import os
from dataclasses import replace
from typing import Any

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from lab_pipeline.config.settings import EndpointTeacherSettings, SettingsError
from lab_pipeline.teacher.protocol import NO_ANSWER, Reply, Request, TeacherError, token_count

_LEAST_MASS = 0.1
"""If all choices together have less probability than this at the first token, the reply's text is read instead."""
_RETRYABLE = {408, 409, 425, 429}
"""HTTP statuses after which a request is tried again, beside all from 500 on: gateways use codes such as 524 and 529."""
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


class EndpointTeacher:
    """A teacher or judge that answers at a server's `/chat/completions`, up to `concurrency` requests at once.

    A request that meets a rate limit, server error, time-out or broken connection is tried again up to `retries` times.
    If it still fails, or fails in another way, `reply` raises `TeacherError`. If the request succeeds but the model gives no
    answer, for example because it refuses, that is no error: `Reply.no_answer` says why.

    Raises:
        SettingsError: the environment variable that should hold the key is not set.
    """

    def __init__(self, settings: EndpointTeacherSettings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.settings = settings
        self.identity = f"{settings.model} at {settings.url}"
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
        self._wrong_url: TeacherError | None = None
        """Error of the first request that found the URL to be wrong; later requests are not sent, and raise it too."""

    async def reply(self, request: Request) -> Reply:
        async with self._in_flight:
            if self._wrong_url:
                raise self._wrong_url
            retrying = AsyncRetrying(
                retry=retry_if_exception_type(_Retryable),
                wait=_wait,
                stop=stop_after_attempt(self.settings.retries + 1),
                reraise=True,
            )
            try:
                return await retrying(self._ask, request)
            except _Retryable as error:
                raise TeacherError(f"{self.identity}: {error} (after {self.settings.retries + 1} tries)") from None

    async def _ask(self, request: Request) -> Reply:
        body: dict[str, object] = {
            "model": self.settings.model,
            "messages": request.turns(),
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
        }
        if request.choices:
            body |= {"logprobs": True, "top_logprobs": 20}
        try:
            response = await self._client.post("/chat/completions", json=body)
        except httpx.TransportError as error:
            raise _Retryable(f"{type(error).__name__} {error}".strip()) from None
        self._check(response.status_code, response)
        try:
            completion = response.json()
            if completion.get("error"):
                self._check(_status(completion["error"]), response)
            return self._read(request, completion)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
            raise TeacherError(f"{self.identity}: not a chat completion: {error!r} in {response.text[:300]}") from None

    def _check(self, status: int, response: httpx.Response) -> None:
        """Raise `_Retryable` or `TeacherError` for a failed request, a redirect or a web page; otherwise do nothing.

        A redirect or a web page is kept as `_wrong_url`, so that no later request is sent. `status` need not be the response's
        own: some servers state an error's status in the body of a 200 response.
        """
        if status in _RETRYABLE or status >= 500:
            after = response.headers.get("retry-after", "")
            raise _Retryable(f"HTTP {status}", float(after) if after.replace(".", "", 1).isdigit() else None)
        if status >= 400:
            raise TeacherError(f"{self.identity}: HTTP {status}: {response.text[:300]}")
        page = response.headers.get("content-type", "").startswith("text/html")
        if page or status >= 300:
            found = "a web page, such as one to sign in" if page else f"a redirect to {response.headers.get('location')}"
            self._wrong_url = TeacherError(
                f"{self.identity}: the server answered with {found}, not with a chat completion; set teacher.url (or "
                "judge.url) to the address below which /chat/completions answers, as in https://api.example.org/v1"
            )
            raise self._wrong_url

    def _read(self, request: Request, completion: Any) -> Reply:
        choice = completion["choices"][0]
        usage = completion.get("usage") or {}
        message, finish = choice["message"], choice.get("finish_reason")
        cut_off = finish in _CUT_OFF and not request.choices
        reply = Reply(
            text=_text(message.get("content")),
            finish="length" if cut_off else "stop",
            prompt_tokens=token_count(usage.get("prompt_tokens")),
            completion_tokens=token_count(usage.get("completion_tokens")),
            probabilities=_probabilities(request.choices, choice.get("logprobs")),
        )
        if reply.says_something and finish != _FILTERED:
            return reply
        return replace(reply, text="", probabilities={}, no_answer=f"{NO_ANSWER}: {_why_none(message, finish)}")


def _status(error: Any) -> int:
    """Return the HTTP status that the `error` in a response's body states; 400, which is not retried, if it states none."""
    code = str(error.get("code")) if isinstance(error, dict) else ""
    return int(code) if code.isdigit() and int(code) >= 400 else 400


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
    return "a filter held it back" if finish == _FILTERED else f"there is no text (finish_reason: {finish})"


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
