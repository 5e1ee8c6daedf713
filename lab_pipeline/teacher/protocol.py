"""Define requests to a teacher or judge, and its replies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.rows import Turn

NO_ANSWER = "the teacher gave no answer"


class TeacherError(LabError):
    """A request failed; the message says why and what to do."""


@dataclass(frozen=True)
class Message:
    """One message of a request."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Request:
    """One chat completion. The journal identifies a request by its hash, so equal requests to one teacher are one call."""

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = 0.0
    seed: int = 0
    """Seed of the sampling; without effect at temperature 0."""
    choices: tuple[str, ...] = ()
    """If given, the teacher writes no text but states the probability of each of these words as the answer's beginning."""

    def turns(self) -> list[Turn]:
        """Return the messages as chat templates and servers take them."""
        return [{"role": message.role, "content": message.content} for message in self.messages]


@dataclass(frozen=True)
class Reply:
    """A teacher's reply to a request."""

    text: str
    finish: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int
    probabilities: dict[str, float] = field(default_factory=dict)
    """For a request with `choices`: their probabilities, normalised over the choices; empty if unknown."""
    no_answer: str | None = None
    """`NO_ANSWER` and why, if the model replied with nothing. Such a reply is not journaled, so that the next run asks again;
    the row that needed it records this as its fault."""

    @property
    def says_something(self) -> bool:
        """Tell whether there is a text or a probability."""
        return bool(self.text.strip() or self.probabilities)


def token_count(stated: object) -> int:
    """Return the number of tokens that a server stated, 0 if it stated none."""
    return stated if isinstance(stated, int) else 0


class Teacher(Protocol):
    """A model that replies to requests."""

    @property
    def identity(self) -> str:
        """Name and revision of the model, part of fingerprints and of the journal's keys."""

    async def reply(self, request: Request) -> Reply:
        """Answer one request.

        Raises:
            TeacherError: the request failed.
        """
