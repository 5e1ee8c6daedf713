"""Read and record reviews, people's decisions about single rows: a banned row is never used, a pinned row always.

Reviews come from two files: `reviews.yaml` at the root of the taxonomy, versioned with its leaves, and `reviews.yaml` in the
home, to which `lab-pipeline review` appends. Of several reviews of a row the last one counts, and the home's follow the
taxonomy's.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import yaml
from filelock import FileLock
from pydantic import Field, ValidationError

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import digest, write_text
from lab_pipeline.core.validation import Section, validation_problems
from lab_pipeline.taxonomy.yaml_lines import YamlProblem, load_located
from lab_pipeline.text.words import normalised

if TYPE_CHECKING:
    from lab_pipeline.core.rows import GeneratedRow

FILE = "reviews.yaml"

Decision = Literal["ban", "pin", "undo"]


class Review(Section):
    """An entry of `reviews.yaml`: the decision about the row with this id, and about any row of the leaf with the same text."""

    leaf: str = Field(min_length=1)
    row: str = Field(pattern="^[0-9a-f]{20}$")
    """Id of a generated row."""
    text: str | None = Field(None, pattern="^[0-9a-f]{20}$")
    """The row's `text_digest`: if the leaf is generated again and ids differ, the row is recognised by it."""
    decision: Decision
    author: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    at: date

    def __str__(self) -> str:
        outcome = {"ban": "banned", "pin": "pinned", "undo": "review undone"}[self.decision]
        return f"{outcome} by {self.author} on {self.at}: {self.reason}"


def text_digest(prompt: str, answer: str) -> str:
    """Return a hash of a prompt and its answer that ignores case and white space."""
    return digest([normalised(prompt), normalised(answer)])


def asked_of(row: GeneratedRow) -> str:
    """Return the prompt of a generated row, context and question, as its training row has it; a missing question is ''."""
    from lab_pipeline.core.rows import as_prompt  # imports pyarrow, which `lab-pipeline validate` does without

    return as_prompt(row["question"] or "", row["context"])[0]["content"]


def row_text(row: GeneratedRow) -> str:
    """Return the `text_digest` of a generated row; a missing answer is ''."""
    return text_digest(asked_of(row), row["answer"] or "")


def review_of(reviews: Sequence[Review], row_id: str, text: str) -> Review | None:
    """Return the last review of a row; None if there is none, or if the last one undoes the reviews before it.

    Args:
        reviews: Reviews of the row's leaf, the last one last.
        row_id: The row's id.
        text: The row's `text_digest`; a review with the same id or the same text is about the row.
    """
    last = next((review for review in reversed(reviews) if row_id == review.row or text == review.text), None)
    return None if last is None or last.decision == "undo" else last


def read_reviews(file: Path) -> list[Review]:
    """Return the entries of a `reviews.yaml`, in its order; an empty list if there is no such file.

    Raises:
        LabError: The file cannot be read, or an entry is wrong; the message then names file and line.
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


def reviews_in_force(home: Home, contributed: Sequence[dict[str, str | None]]) -> dict[str, list[Review]]:
    """Return the reviews of each leaf by key, the taxonomy's before the home's; of those on one row, the last counts.

    Args:
        contributed: The reviews of the taxonomy as JSON, as `Snapshot.reviews` has them.

    Raises:
        LabError: The home's `reviews.yaml` is wrong.
    """
    by_leaf: dict[str, list[Review]] = {}
    for review in [*map(Review.model_validate, contributed), *read_reviews(home.root / FILE)]:
        by_leaf.setdefault(review.leaf, []).append(review)
    return by_leaf


def record_review(home: Home, leaf: str, row: str, text: str | None, decision: Decision, author: str, reason: str) -> Review:
    """Append a review with today's date (UTC) to the home's `reviews.yaml`, and return it.

    Raises:
        LabError: Author or reason is blank, the file is already wrong, or its layout allows no entry to be appended.
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
