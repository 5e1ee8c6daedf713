"""A teacher in a few lines: its replies are a function of the request, and it remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from lab_pipeline.flows.flow import Flow
from lab_pipeline.teacher.protocol import Reply, Request


def copying(request: Request) -> str | Reply:
    """Good replies to every simple flow: a question on half of a sentence, a text as the answer to one on it, then 'Yes'."""
    if request.choices:
        return Reply("Yes", "stop", 1, 1, {"Yes": 0.9, "No": 0.1})
    last = request.messages[-1].content
    if last.startswith("Sentence: "):
        words = last.removeprefix("Sentence: ").rstrip(".").split()
        about = "And what about" if request.temperature else "What about"
        return f"{about} {' '.join(words[: len(words) // 2])}?"
    if last.startswith("Text: "):
        text, _, question = last.removeprefix("Text: ").partition("\n\n")
        return text if question else f"What will {text.split()[0]} bring, and by when?"
    if last.startswith("Write a text"):
        return f"Person {request.seed} will bring the plants by Friday."
    if last.startswith("Write a new exercise"):
        return f"Write a line about lamp number {request.seed} for the neighbour."
    return f"Dear neighbour, it is ready for you: {last}"


def known_verdicts(flow: Flow) -> dict[str, bool]:
    """What a judge is asked (the last message) about the known rows of a flow's gating judges, and whether the row is good."""
    return {
        flow.render(judge.prompt, row)[-1].content: is_good
        for judge in flow.file.judges
        if judge.gates
        for rows, is_good in zip(flow.known_rows(judge), (True, False), strict=True)
        for row in rows
    }


class ScriptedTeacher:
    """`pace(n)` is the number of loop turns that the n-th reply takes."""

    def __init__(
        self,
        script: Callable[[Request], str | Reply] = copying,
        identity: str = "scripted",
        pace: Callable[[int], int] = lambda number: 1,
    ) -> None:
        self.script = script
        self.identity = identity
        self.pace = pace
        self.requests: list[Request] = []
        self.finished = 0

    async def reply(self, request: Request) -> Reply:
        self.requests.append(request)
        for _ in range(self.pace(len(self.requests))):
            await asyncio.sleep(0)
        said = self.script(request)
        self.finished += 1
        return said if isinstance(said, Reply) else Reply(said, "stop", 1, 1)
