"""What people decided about single rows: a banned row never comes in again, a pinned one stays.

Two files are read, with the same entries: `reviews.yaml` at the taxonomy's root, which comes by git like its leaves, and the
home's own, which `lab-pipeline review` appends to and which has the last word. Of several entries on a row the last counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

import yaml
from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import as_prompt
from lab_pipeline.core.storage import digest, write_text
from lab_pipeline.core.validation import validation_problems
from lab_pipeline.taxonomy.yaml_lines import YamlProblem, load_located
from lab_pipeline.text.words import normalised

FILE = "reviews.yaml"

Decision = Literal["ban", "pin", "undo"]


class Review(BaseModel):
    """One entry of `reviews.yaml`. It is about the row of that id, and about any row of the leaf with the same text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    leaf: str = Field(min_length=1)
    row: str = Field(pattern="^[0-9a-f]{20}$")
    """Id of a generated row."""
    text: str | None = Field(None, pattern="^[0-9a-f]{20}$")
    """See `text_digest`; by it the row is known again after its leaf was generated anew, when ids may differ."""
    decision: Decision
    author: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    at: date

    def __str__(self) -> str:
        done = {"ban": "banned", "pin": "pinned", "undo": "review undone"}[self.decision]
        return f"{done} by {self.author} on {self.at}: {self.reason}"


def text_digest(asked: str, answer: str) -> str:
    """Hash of what a model is asked and what it should answer, whatever their case and white space."""
    return digest([normalised(asked), normalised(answer)])


def asked_of(row: dict[str, Any]) -> str:
    """What a generated row asks a model, as its training row does; of an incomplete row what it has."""
    return as_prompt(row["question"] or "", row["context"])[0]["content"]


def row_text(row: dict[str, Any]) -> str:
    """`text_digest` of a generated row."""
    return text_digest(asked_of(row), row["answer"] or "")


def review_of(reviews: Sequence[Review], row_id: str, text: str) -> Review | None:
    """The last word on a row of a leaf, None where nobody reviewed it or the review was undone."""
    last = next((review for review in reversed(reviews) if row_id == review.row or text == review.text), None)
    return None if last is None or last.decision == "undo" else last


def read_reviews(file: Path) -> list[Review]:
    """The entries of a `reviews.yaml`, none if there is no such file.

    Raises:
        LabError: it cannot be read, or an entry is wrong; the message names file and line.
    """
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LabError(f"{file}: cannot be read ({error.strerror})") from None
    return _parsed(raw, file)


def _parsed(raw: bytes, file: Path) -> list[Review]:
    try:
        located = load_located(raw)
    except YamlProblem as error:
        raise LabError(f"{file}:{error.line}: {error.message}") from None
    if not isinstance(located.value, list | None):
        raise LabError(f"{file}:1: expected a list of entries with {', '.join(Review.model_fields)}")
    reviews = []
    for index, entry in enumerate(located.value or []):
        try:
            reviews.append(Review.model_validate(entry))
        except ValidationError as error:
            line = located.line((index, *error.errors()[0]["loc"]))
            raise LabError(f"{file}:{line}: {validation_problems(error)[0]}") from None
    return reviews


def reviews_in_force(home: Home, contributed: list[dict[str, Any]]) -> dict[str, list[Review]]:
    """All reviews of each leaf that has some, in the order in which they count.

    Args:
        contributed: `reviews` of the snapshot, the taxonomy's own.

    Raises:
        LabError: the home's `reviews.yaml` is wrong.
    """
    by_leaf: dict[str, list[Review]] = {}
    for review in [*map(Review.model_validate, contributed), *read_reviews(home.root / FILE)]:
        by_leaf.setdefault(review.leaf, []).append(review)
    return by_leaf


def record_review(home: Home, leaf: str, row: str, text: str | None, decision: Decision, author: str, reason: str) -> Review:
    """Append a review to the home's file.

    Raises:
        LabError: author or reason is blank, or the file is wrong as it stands.
    """
    if not author.strip() or not reason.strip():
        raise LabError("a review needs an author and a reason, neither of them blank")
    review = Review(leaf=leaf, row=row, text=text, decision=decision, author=author, reason=reason, at=datetime.now(UTC).date())
    file = home.root / FILE
    with FileLock(file.with_suffix(".lock")):
        read_reviews(file)
        before = file.read_text(encoding="utf-8").rstrip("\n") + "\n" if file.exists() else ""
        entry = yaml.safe_dump([review.model_dump(mode="json")], allow_unicode=True, sort_keys=False)
        after = before.lstrip("\n") + entry
        try:
            _parsed(after.encode(), file)
        except LabError as error:
            raise LabError(f"{file}: no entry can be added, each must begin with '- ' at its line's start: {error}") from None
        write_text(file, after)
    return review
