"""Measure a model once on one set of questions, and keep the results in the home."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lab_pipeline.core.storage import read_json, write_json

_Question = TypeVar("_Question")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class MeasuredModel:
    """A model under evaluation; results are stored by the digest of its files."""

    folder: Path
    digest: str


def measure_once(
    path: Path, questions: Mapping[str, Sequence[_Question]], measure: Callable[[list[_Question]], Iterable[_Result]]
) -> dict[str, list[_Result]]:
    """Measure the questions of all leaves in one call of `measure`, and store its results by leaf; read them if stored."""
    if not path.exists():
        results = iter(measure([question for asked in questions.values() for question in asked]))
        write_json(path, {leaf: [next(results) for _ in asked] for leaf, asked in questions.items()})
    return read_json(path)
