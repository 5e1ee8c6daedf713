"""Define what a teacher or judge is, the requests to it and its replies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.rows import Turn
from lab_pipeline.core.storage import digest

NO_ANSWER = "the teacher gave no answer"


class TeacherError(LabError):
    """A request failed, so there is no reply; the message says why. An empty reply is no error, see `Reply.no_answer`."""


class NoVerdict(TeacherError):
    """A judge was asked and gave no answer, as `Reply.no_answer`, with which the message begins."""


@dataclass(frozen=True, slots=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Request:
    """A request for one chat completion.

    The journal identifies a request by a hash of it and of the teacher, so equal requests to one teacher are one call.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = 0.0
    seed: int = 0
    """Seed of the sampling; without effect at temperature 0."""
    choices: tuple[str, ...] = ()
    """If given, the reply should state how probable each of these words is as the beginning of the answer. From a server that
    states no probabilities, the reply's text is read instead."""

    def turns(self) -> list[Turn]:
        """Return the messages as dictionaries, the form in which chat templates and servers take them."""
        return [{"role": message.role, "content": message.content} for message in self.messages]

    def key(self, model: str) -> str:
        """Return the hash by which journals know this request to the model of an identity."""
        asked = {
            "messages": self.turns(),
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
            "choices": self.choices,
        }
        return digest([model, asked])


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply of a teacher or judge to a request; the request succeeded, but the model may have given no answer."""

    text: str
    finish: Literal["stop", "length"]
    """*length* if the text was cut off at the request's `max_tokens`."""
    prompt_tokens: int
    completion_tokens: int
    probabilities: dict[str, float] = field(default_factory=dict)
    """Probability of each of the request's `choices`, normalised over the choices; empty without choices or if unknown."""
    money: float = 0.0
    """What the call cost, by the prices that the settings stated when it was made."""
    no_answer: str | None = None
    """If the request succeeded but the model gave no answer: `NO_ANSWER` and the reason. Such a reply is not journaled, so that
    the next run asks again. The row that needs it takes this text as its fault, and the rule `no_reply` rejects the row."""
    cached_tokens: int = 0
    """Of the prompt tokens, those that the server found in its prefix cache; 0 if it does not say."""
    reasoning_tokens: int = 0
    """Of the completion tokens, those of thinking; 0 if the server does not say."""
    retries: tuple[str, ...] = ()
    """Why earlier tries of this call failed, in turn, such as 'HTTP 429'; not journaled."""

    @property
    def says_something(self) -> bool:
        """Tell whether the reply holds a text that is not blank, or probabilities."""
        return bool(self.text.strip() or self.probabilities)


def token_count(stated: object) -> int:
    """Return the number of tokens that a server stated; 0 if what it stated is no integer."""
    return stated if isinstance(stated, int) else 0


class Teacher(Protocol):
    """A model, teacher or judge, that answers requests."""

    @property
    def identity(self) -> str:
        """Name of the model with its revision or server; part of fingerprints and of the journal's keys."""

    async def reply(self, request: Request) -> Reply:
        """Answer one request; if the model replies with nothing, return a reply with `no_answer`.

        Raises:
            TeacherError: the request failed, so there is no reply.
        """
