"""Measure a model once on one set of questions, and keep the results in the home."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lab_pipeline.core.storage import read_json, write_json

_Question = TypeVar("_Question")
_Result = TypeVar("_Result")


EXAM = "exam: "
"""Stands before a leaf's key where results are kept by leaf: so its exam questions are apart from its held-out seeds."""


@dataclass(frozen=True)
class MeasuredModel:
    """Base model, champion or candidate under evaluation, with the hash of its files, under which its results are stored."""

    folder: Path
    digest: str


def measure_once(
    path: Path, questions: Mapping[str, Sequence[_Question]], measure: Callable[[list[_Question]], Iterable[_Result]]
) -> dict[str, list[_Result]]:
    """Return one result for each question, by leaf; read from `path` if it exists, else measured and stored there.

    `measure` is called once with the questions of all leaves, and gives one result for each, in their order.
    """
    if not path.exists():
        results = iter(measure([question for asked in questions.values() for question in asked]))
        write_json(path, {leaf: [next(results) for _ in asked] for leaf, asked in questions.items()})
    return read_json(path)
