"""Judges with known faults: what they say is a function of the request, of what an answer is worth, and of chance."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import asdict

from lab_pipeline.core.storage import digest
from lab_pipeline.evaluation.known_rows import KNOWN_ROWS
from lab_pipeline.teacher.protocol import Reply, Request
from lab_pipeline_tests.scripted_teacher import ScriptedTeacher

Worth = Callable[[str, str], float]
"""What an answer to a question is worth, from 0 to 1."""


def known_worth(question: str, answer: str) -> float:
    """Of known rows: 1 for good ones."""
    return float(next(row["good"] for row in KNOWN_ROWS if (row["question"], row["answer"]) == (question, answer)))


def shown(request: Request) -> tuple[str, str, bool]:
    """Question and answer that a request shows, and whether the reference comes first."""
    text = request.messages[-1].content
    found = {name: re.search(f"<{name}>\n(.*?)\n</{name}>", text, re.DOTALL) for name in ("question", "answer", "reference")}
    question, answer, reference = (found[name] for name in ("question", "answer", "reference"))
    assert question and answer and reference
    return question[1], answer[1], reference.start() < answer.start()


def judge(
    worth: Worth = known_worth,
    answer_first_bonus: float = 0.0,
    word_bonus: float = 0.0,
    noise: float = 0.0,
    probabilities: bool = False,
) -> ScriptedTeacher:
    """A judge that adds a bonus where the answer comes first, one for each doubling of an answer's words, and noise."""

    def script(request: Request) -> str | Reply:
        question, answer, reference_first = shown(request)
        chance = random.Random(digest(asdict(request)))
        value = worth(question, answer) + word_bonus * (len(answer.split()).bit_length() - 1) + chance.gauss(0, noise)
        value = min(1.0, max(0.0, value + (0.0 if reference_first else answer_first_bonus)))
        if probabilities:
            return Reply("Right", "stop", 1, 1, {"Right": value, "Partly": 0.0, "Wrong": 1 - value})
        return "Right" if value > 0.75 else "Partly" if value > 0.25 else "Wrong"

    return ScriptedTeacher(script)
