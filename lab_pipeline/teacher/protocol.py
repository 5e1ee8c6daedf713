"""What the pipeline asks of a teacher or judge."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from lab_pipeline.core.errors import LabError

NO_ANSWER = "the teacher gave no answer"


class TeacherError(LabError):
    """A request got no reply; the message says why and what to do."""


@dataclass(frozen=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Request:
    """One chat completion. Equal requests to the same teacher are one call: the journal knows them by their hash."""

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = 0.0
    seed: int = 0
    """Feeds the sampling; of no effect at temperature 0."""
    choices: tuple[str, ...] = ()
    """If given, the teacher writes nothing but says how probable each of these words is as the answer's beginning."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Reply:
    text: str
    finish: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int
    probabilities: dict[str, float] = field(default_factory=dict)
    """For a request with `choices`: their probabilities, normalised over the choices; empty if the teacher has none."""
    no_answer: str | None = None
    """`NO_ANSWER` and why, where the model was asked and said nothing: it is no reply that may be kept, so it is asked again
    next time, and what was to be made from it has this as its fault."""

    @property
    def says_something(self) -> bool:
        return bool(self.text.strip() or self.probabilities)


def token_count(said: Any) -> int:
    """The number of tokens as a server gave it, 0 where it gave none."""
    return said if isinstance(said, int) else 0


class Teacher(Protocol):
    @property
    def identity(self) -> str:
        """Name and revision of the model, as it enters fingerprints and the journal."""
        ...

    async def reply(self, request: Request) -> Reply:
        """Answer one request.

        Raises:
            TeacherError: no answer could be had.
        """
        ...
