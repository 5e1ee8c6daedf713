"""Count what calls to teacher and judge take: tokens, money, time, and tries that failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from lab_pipeline.teacher.protocol import Reply


@dataclass
class Spent:
    """What calls took; replies from the journal take nothing."""

    calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt tokens, those that the server had in its prefix cache, if it says so."""
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    """Of the completion tokens, those of thinking, if the server says so."""
    money: float = 0.0
    seconds: float = 0.0
    """Time from start to end; leaves that are refreshed together each count it whole."""
    retries: dict[str, int] = field(default_factory=dict)
    """Number of tries that failed before a reply came, by cause, such as 'HTTP 429'."""

    def add(self, reply: Reply) -> None:
        self.calls += 1
        self.prompt_tokens += reply.prompt_tokens
        self.cached_tokens += reply.cached_tokens
        self.completion_tokens += reply.completion_tokens
        self.reasoning_tokens += reply.reasoning_tokens
        self.money += reply.money
        for cause in reply.retries:
            self.retries[cause] = self.retries.get(cause, 0) + 1


def total(parts: Iterable[Spent]) -> Spent:
    """Return the sum of all parts."""
    numbers: Counter[str] = Counter()
    retries: Counter[str] = Counter()
    for part in parts:
        numbers.update({name: value for name, value in asdict(part).items() if name != "retries"})
        retries.update(part.retries)
    return Spent(**numbers, retries=dict(retries))


def numbers_of(spent: Spent) -> dict[str, Any]:
    """Return what was spent as flat numbers that the UI plots: tries by cause as `retries HTTP 429`, and all as `retries`."""
    numbers = {"teacher_calls" if name == "calls" else name: value for name, value in asdict(spent).items()}
    rounded = {"money": round(spent.money, 6), "seconds": round(spent.seconds, 1), "retries": sum(spent.retries.values())}
    return {**numbers, **rounded, **{f"retries {cause}": count for cause, count in spent.retries.items()}}
