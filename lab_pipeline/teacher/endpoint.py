"""A teacher behind an OpenAI-compatible server: vLLM, llama.cpp, TGI or a hosted API."""

from __future__ import annotations

import asyncio
import math
import os
from typing import Any

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from lab_pipeline.settings import EndpointTeacherSettings, SettingsError
from lab_pipeline.teacher.protocol import Reply, Request, TeacherError

_LEAST_MASS = 0.1
"""Of the choices together, at the first token."""
_RETRYABLE = {408, 409, 425, 429, 500, 502, 503, 504}


class _Retryable(Exception):
    def __init__(self, said: str, after_seconds: float | None = None) -> None:
        super().__init__(said)
        self.after_seconds = after_seconds


def _wait(state: RetryCallState) -> float:
    """The server's `Retry-After` where it gave one, else exponential back-off with full jitter."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, _Retryable) and error.after_seconds is not None:
        return min(error.after_seconds, 120)
    return wait_random_exponential(multiplier=0.5, max=30)(state)


class EndpointTeacher:
    """Asks `/chat/completions`, several requests at once, trying again after refusals, time-outs and broken connections.

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

    async def reply(self, request: Request) -> Reply:
        async with self._in_flight:
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
        body: dict[str, Any] = {
            "model": self.settings.model,
            "messages": [{"role": message.role, "content": message.content} for message in request.messages],
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
        if response.status_code in _RETRYABLE:
            after = response.headers.get("retry-after", "")
            raise _Retryable(f"HTTP {response.status_code}", float(after) if after.replace(".", "", 1).isdigit() else None)
        if response.is_error:
            raise TeacherError(f"{self.identity}: HTTP {response.status_code}: {response.text[:300]}")
        try:
            return self._read(request, response.json())
        except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
            raise TeacherError(f"{self.identity}: not a chat completion: {error!r} in {response.text[:300]}") from None

    def _read(self, request: Request, body: dict[str, Any]) -> Reply:
        choice = body["choices"][0]
        usage = body.get("usage") or {}
        return Reply(
            text=choice["message"]["content"] or "",
            finish="length" if choice.get("finish_reason") == "length" and not request.choices else "stop",
            prompt_tokens=usage.get("prompt_tokens", 0),
            completion_tokens=usage.get("completion_tokens", 0),
            probabilities=_probabilities(request.choices, choice.get("logprobs")),
        )


def _probabilities(choices: tuple[str, ...], logprobs: dict[str, Any] | None) -> dict[str, float]:
    """Probability of each choice by the first token's alternatives, normalised; empty where the server gives none, or where
    the reply hardly begins with a choice at all, so that its text says more."""
    if not choices or not logprobs or not logprobs.get("content"):
        return {}
    mass = dict.fromkeys(choices, 0.0)
    for alternative in logprobs["content"][0]["top_logprobs"]:
        token = alternative["token"].strip().casefold()
        for choice in choices:
            if token and choice.casefold().startswith(token):
                mass[choice] += math.exp(alternative["logprob"])
    total = sum(mass.values())
    return {choice: value / total for choice, value in mass.items()} if total >= _LEAST_MASS else {}
