"""A teacher and judge for the shipped strong flows: it writes in the manner of a prompt's examples, and is not perfect."""

from __future__ import annotations

import random
import re
from typing import get_args

from lab_pipeline.core.storage import digest
from lab_pipeline.flows.flow import load_flow
from lab_pipeline.taxonomy.leaf import Kind
from lab_pipeline_tests.builders import word
from lab_pipeline_tests.scripted_teacher import known_verdicts
from lab_pipeline_tests.stub_endpoint import Answer, Asked

KNOWN = {question: good for kind in get_args(Kind) for question, good in known_verdicts(load_flow(kind)).items()}
REJECTED = 0.1
"""Share of the rows that each judge finds bad."""


def strong(asked: Asked) -> Answer:
    """Reply in about the length of the examples, new for each request, and in the number of items that was asked for, or one
    less; count a token for four characters, as most English tokenizers do within a tenth or two."""
    choice = random.Random(digest(asked.body))
    if asked.body.get("logprobs"):
        good = KNOWN.get(asked.last, choice.random() >= REJECTED)
        text, probabilities = ("Yes", {"Yes": 0.9, "No": 0.1}) if good else ("No", {"No": 0.9, "Yes": 0.1})
        return Answer(text, probabilities=probabilities, usage=_usage(asked, text))
    examples = [turn["content"] for turn in asked.body["messages"] if turn["role"] == "assistant"]
    if not examples:  # a form of a document: half as long
        words = asked.last.partition("<document>")[2].partition("</document>")[0].split()
        text = " ".join(choice.sample(words, len(words) // 2))
    else:
        wanted = re.search(r"Write (\d+) (?:exercises|tasks)\.$", asked.last)
        count = int(wanted.group(1)) - (choice.random() < 0.3) if wanted else 1
        text = "\n".join(_varied(choice.choice(examples), choice) for _ in range(count))
    return Answer(text, usage=_usage(asked, text))


def _varied(example: str, choice: random.Random) -> str:
    """An example with every line a tenth to a third longer or shorter, and a name that makes it new."""
    lines = []
    for line in example.splitlines():
        label, colon, words = line.partition(": ") if line.startswith(("Question: ", "Answer: ")) else ("", "", line)
        kept = words.split()
        new = [word(choice.random()) for _ in range(1 + len(kept) // 8)]
        kept = [*kept[: max(1, round(len(kept) * choice.uniform(0.7, 1.0)))], *new]
        lines.append(f"{label}{colon}{' '.join(kept)}")
    return "\n".join(lines)


def _usage(asked: Asked, text: str) -> dict[str, int]:
    prompt = sum(len(turn["content"]) for turn in asked.body["messages"])
    return {"prompt_tokens": round(prompt / 4), "completion_tokens": round(len(text) / 4) + 1}
