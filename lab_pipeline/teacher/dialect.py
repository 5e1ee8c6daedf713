"""Learn what an OpenAI-compatible server takes of a request, from its refusals.

Servers differ: some know the length as `max_completion_tokens` only, some refuse `seed`, a temperature or log-probabilities. A
refusal names the field, so the request is sent again without it, and later requests are right at once.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from typing import Any

from lab_pipeline.config.teachers import EndpointTeacherSettings
from lab_pipeline.teacher.protocol import Request

_OTHER_LENGTH = "max_completion_tokens"
_LEAST_TEMPERATURE = 0.01
"""Sent in place of 0 to servers that want a temperature above 0."""
_OPTIONAL = ("temperature", "seed", "top_logprobs", "logprobs")
_UNKNOWN = re.compile(
    r"unsupported|not support|only support|unknown|unrecogni[sz]ed|unexpected|extra|forbidden|not permitted|not allowed|"
    r"invalid|default"
)
"""How a refusal says that a field itself is unwelcome, and not that the request is too long."""


def endpoint_identity(settings: EndpointTeacherSettings) -> str:
    """Return the name of a model behind an endpoint: with all that changes its replies, and without the key."""
    extra = f" with {json.dumps(settings.extra_body, sort_keys=True)}" if settings.extra_body else ""
    return f"{settings.model} at {settings.url}{extra}"


@dataclass(frozen=True)
class Dialect:
    """The form of a request that one server takes for one model."""

    length_field: str = "max_tokens"
    omitted: frozenset[str] = frozenset()
    """Fields that are left out, of `temperature`, `seed`, `logprobs` and `top_logprobs`."""
    top_logprobs: int = 20
    least_temperature: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)
    """Fields that the settings add to each request."""

    def body(self, model: str, request: Request, reasoning_tokens: int = 0) -> dict[str, Any]:
        """Return the JSON body of a request, with room for `reasoning_tokens` before the answer."""
        body: dict[str, Any] = {
            "model": model,
            "messages": request.turns(),
            self.length_field: request.max_tokens + reasoning_tokens,
            "temperature": max(request.temperature, self.least_temperature),
            "seed": request.seed,
        }
        if request.choices and "logprobs" not in self.omitted:
            body |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        return {name: value for name, value in body.items() if name not in self.omitted} | self.extra

    def after(self, refusal: str, sent: dict[str, Any]) -> Dialect | None:
        """Return the dialect that avoids what a server refused; None if the refusal is about none of the fields.

        Args:
            refusal: The body of the server's response.
            sent: The body of the request.
        """
        said = refusal.casefold()
        if _OTHER_LENGTH in said and self.length_field != _OTHER_LENGTH:
            return replace(self, length_field=_OTHER_LENGTH)
        for name in _OPTIONAL:
            if name not in sent or name in self.extra or not re.search(rf"(?<![a-z_]){name}(?![a-z_])", said):
                continue
            if name == "temperature" and sent[name] < _LEAST_TEMPERATURE and re.search(r"positive|> ?0|greater than 0", said):
                return replace(self, least_temperature=_LEAST_TEMPERATURE)
            if name == "top_logprobs" and (limit := _limit(said, self.top_logprobs)):
                return replace(self, top_logprobs=limit)
            if _UNKNOWN.search(said):
                return replace(self, omitted=self.omitted | {name})
        return None

    def __str__(self) -> str:
        """Say in what the dialect differs from that of OpenAI's reference; '' if in nothing."""
        parts = []
        if self.length_field != "max_tokens":
            parts.append(f"{self.length_field} for the length")
        if self.least_temperature:
            parts.append(f"a temperature of {self.least_temperature} for 0")
        if self.top_logprobs < 20 and "top_logprobs" not in self.omitted:
            parts.append(f"{self.top_logprobs} log-probabilities")
        if self.omitted:
            parts.append(f"without {', '.join(sorted(self.omitted))}")
        return ", ".join(parts)


def _limit(said: str, now: int) -> int | None:
    """Return the largest number in a refusal that is below what was asked for, such as the 5 of 'must be <= 5'; else None."""
    return max((number for each in re.findall(r"\d+", said) if 0 < (number := int(each)) < now), default=None)
