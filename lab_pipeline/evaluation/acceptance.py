"""Ask models the acceptance questions, and check their greedy answers by rule: no model judges, so the result is repeatable."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

from lab_pipeline.core.evaluation import AcceptanceResult
from lab_pipeline.core.home import Home
from lab_pipeline.core.progress import Say
from lab_pipeline.core.rows import AcceptanceQuestion, Question
from lab_pipeline.curation.phrases import find
from lab_pipeline.evaluation.measured_model import MeasuredModel, measure_once
from lab_pipeline.models.answers import greedy_answers
from lab_pipeline.text.words import SPACELESS

ANSWER_TOKENS = 128
"""Where an answer is cut off; what stands later is not looked at."""

_TOKEN = re.compile(rf"[{SPACELESS}]|[^\W{SPACELESS}]+|[^\w\s.,:;!?…'’‘\"“”()\[\]*`-]")
"""A word, a character of a script without spaces, or a sign that is no punctuation, such as € or +."""


def ask_acceptance(
    home: Home, questions: Sequence[AcceptanceQuestion], models: Mapping[str, MeasuredModel], say: Say
) -> list[AcceptanceResult]:
    """Let each model answer all questions greedily, and return the results in the questions' order.

    Answers are stored by model and question, so that a champion is asked the same question once.
    """

    def answered(role: str, model: MeasuredModel) -> list[str]:
        def ask(asked: list[Question]) -> list[str]:
            say(f"asking {role} ({model.digest}) {len(asked)} acceptance questions")
            return greedy_answers(model.folder, asked, ANSWER_TOKENS, say)

        return measure_once(home.evaluations / "answers" / f"{model.digest}.json", ANSWER_TOKENS, prompts, ask)

    if not questions:
        return []
    prompts: list[Question] = [{"question": each["question"], "answer": "", "context": each["context"]} for each in questions]
    answers = {role: answered(role, model) for role, model in models.items()}
    return [
        {
            "leaf": question["leaf"],
            "name": question["name"],
            "question": question["question"],
            "answers": (given := {role: answers[role][number] for role in models}),
            "failures": {role: failure(question, answer) for role, answer in given.items()},
        }
        for number, question in enumerate(questions)
    ]


def failure(question: AcceptanceQuestion, answer: str) -> str | None:
    """Return why an answer does not pass, None if it does.

    Texts are looked for as whole words, without regard to case and punctuation. An answer declines if it has one of the phrases
    of a refusal, or of an unknown answer, by which curation recognises them; these are known in English only.
    """
    said = _words(answer)
    if question["declines"] and not (find("refusal", answer) or find("no_answer", answer)):
        return "does not decline"
    if question["any_of"] and not any(_words(text) in said for text in question["any_of"]):
        return f"has none of {', '.join(map(repr, question['any_of']))}"
    if lacking := [text for text in question["all_of"] if _words(text) not in said]:
        return f"lacks {lacking[0]!r}"
    if forbidden := [text for text in question["none_of"] if _words(text) in said]:
        return f"has {forbidden[0]!r}"
    return None


def _words(text: str) -> str:
    """Return the words of a text in folded case, each between blanks, so that one text is a part of another by whole words."""
    return f" {' '.join(_TOKEN.findall(unicodedata.normalize('NFKC', text).casefold()))} "
