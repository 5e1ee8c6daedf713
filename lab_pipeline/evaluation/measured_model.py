"""Measure a model once on each question, and keep the results in the home: a new question costs only itself."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

from lab_pipeline.core.home import Home
from lab_pipeline.core.progress import Say
from lab_pipeline.core.rows import GeneralQuestion, Question
from lab_pipeline.core.storage import digest, read_json, write_json
from lab_pipeline.models.likelihood import answer_losses
from lab_pipeline.models.packing import MEASURE

_Question = TypeVar("_Question")
_Result = TypeVar("_Result")


EXAM = "exam: "
"""Stands before a leaf's key where results are kept by leaf: so its exam questions are apart from its held-out seeds."""


@dataclass(frozen=True)
class MeasuredModel:
    """Base model, champion or candidate under evaluation, with the hash of its files, under which its results are stored.

    The chat template is among the files, so a model with another template has results of its own.
    """

    folder: Path
    digest: str


def stored_losses(
    home: Home, role: str, model: MeasuredModel, questions: Sequence[Question | GeneralQuestion], say: Say
) -> list[float]:
    """Return a model's loss on each question's answer, in nats per token; the questions that it was not asked yet are scored
    together. `role` is only for messages."""

    def measure(asked: list[Question]) -> list[float]:
        say(f"scoring {role} ({model.digest}) on {len(asked)} answers")
        return answer_losses(model.folder, asked, say)

    asked: list[Question] = [
        {"question": each["question"], "answer": each["answer"], "context": cast("str | None", each.get("context"))}
        for each in questions
    ]
    return measure_once(home.evaluations / "scores" / f"{model.digest}.json", MEASURE, asked, measure)


def measure_once(
    path: Path, how: object, questions: Sequence[_Question], measure: Callable[[list[_Question]], Iterable[_Result]]
) -> list[_Result]:
    """Return one result for each question, in their order; those in `path`, a model's results, are read.

    `measure` is called once with all other questions, and gives one result for each, in their order. They are stored.

    Args:
        how: what results depend on beside model and question, such as the number of tokens of an answer.
    """
    known = read_json(path) if path.exists() else {}
    keys = [digest([how, question]) for question in questions]
    new = {key: question for key, question in zip(keys, questions, strict=True) if key not in known}
    if new:
        known |= dict(zip(new, measure(list(new.values())), strict=True))
        write_json(path, known)
    return [known[key] for key in keys]
