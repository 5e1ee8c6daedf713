"""Read acceptance questions, which people write in `exam.yaml` files: what a champion must know, and what it must never say.

A file beside a leaf's `qna.yaml` belongs to the leaf, and its questions are asked while the leaf is in use. A file at the root
of the taxonomy is for every model. Like held-out seeds, the questions are never shown to a teacher or trained on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from lab_pipeline.core.validation import Section, validation_problems
from lab_pipeline.taxonomy.find import BRANCHES, QNA
from lab_pipeline.taxonomy.leaf import Seed
from lab_pipeline.taxonomy.problem import Problem
from lab_pipeline.taxonomy.yaml_lines import LocatedYaml, YamlProblem, load_located

if TYPE_CHECKING:
    from lab_pipeline.taxonomy.holdout import Ledger  # imports pyarrow, which `lab-pipeline validate` does without

FILE = "exam.yaml"
MOST_QUESTIONS = 200
"""Maximum number of questions in one file, because each is asked of every candidate."""

_Text = Annotated[str, Field(min_length=1, max_length=4000)]


class AcceptanceQuestion(Section):
    """An entry of an `exam.yaml`: a question, and what holds of an answer that passes."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    """What verdict and report call the question; unique in its file."""
    question: _Text
    context: _Text | None = None
    """A text to ask the question on."""
    any_of: tuple[_Text, ...] = ()
    """The answer must contain at least one of these texts."""
    all_of: tuple[_Text, ...] = ()
    """The answer must contain each of these texts."""
    none_of: tuple[_Text, ...] = ()
    """The answer must contain none of these texts."""
    declines: bool = False
    """The answer must decline, as in 'I do not know'."""

    @field_validator("name", "question", "context", mode="after")
    @classmethod
    def _is_not_blank(cls, text: str | None) -> str | None:
        if text is not None and not text.strip():
            raise ValueError("expected a text, found a blank one")
        return text.strip() if text else text

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        if not (self.any_of or self.all_of or self.none_of or self.declines):
            raise ValueError("says nothing of the answer; expected any_of, all_of, none_of or declines")
        if self.declines and (self.any_of or self.all_of):
            raise ValueError("declines: an answer that declines cannot be asked to contain any_of or all_of")
        return self

    @property
    def asked(self) -> str:
        """Return the prompt: the context, if there is one, a blank line and the question."""
        return f"{self.context}\n\n{self.question}" if self.context else self.question


@dataclass
class ExamFile:
    """The questions of one `exam.yaml` with their lines, and its problems. A file with a wrong part has no questions."""

    leaf: str
    """Key of the leaf that the file belongs to; '' for the file at the root of the taxonomy."""
    questions: list[tuple[AcceptanceQuestion, int]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def read_exams(taxonomy: Path, below: str = "") -> Iterator[ExamFile]:
    """Read all `exam.yaml` files in the folder `below` of a taxonomy, and in the folders under it, in the order of their paths.

    A file that nobody reads, since it is misnamed or stands beside no `qna.yaml`, is one with a problem. Hidden folders are
    left out, and links are not followed.
    """
    for path in sorted(_files(taxonomy / below)):
        file = path.relative_to(taxonomy).as_posix()
        key = path.parent.relative_to(taxonomy).as_posix()
        exam = ExamFile("" if key == "." else key)
        if path.name != FILE:
            exam.problems.append(_problem(file, f"nobody reads this file; rename it to {FILE}"))
        elif path.is_symlink():
            exam.problems.append(_problem(file, "a link, which is not followed; put the file itself here"))
        elif exam.leaf and not (exam.leaf.split("/")[0] in BRANCHES and (path.parent / QNA).is_file()):
            exam.problems.append(
                _problem(file, f"nobody reads this file; put it beside a leaf's {QNA}, or at the root of the taxonomy")
            )
        else:
            _read(path, file, exam)
        yield exam


def collect_exam(taxonomy: Path, ledger: Ledger, before: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the acceptance questions in force, each as JSON with its `leaf`, and notes for people on what is wrong.

    Each question is recorded in the ledger as held out. One that repeats a seed in use or a training prompt is set aside, with
    a note, because it would not test anything but memory. A file that is wrong is noted, and its questions of the previous
    snapshot stay in force, so that a slip of the pen abolishes no policy.

    Args:
        before: The questions of the previous snapshot.
    """
    found: list[dict[str, Any]] = []
    notes = []
    for exam in read_exams(taxonomy):
        if exam.problems:
            found += [question for question in before if question["leaf"] == exam.leaf]
            notes += [f"{problem}; until it is fixed, the file's earlier questions hold" for problem in exam.problems]
        for question, line in exam.questions:
            seed = Seed(question.question, "", question.context, 0, line, question.asked)
            role = ledger.roles.get(seed.identity) or ledger.assign(seed, exam.leaf, hold_out=True)
            if role == "held_out":
                found.append({"leaf": exam.leaf, **question.model_dump(mode="json")})
            else:
                place = f"{exam.leaf}/{FILE}:{line}".removeprefix("/")
                notes.append(f"{place}: {question.name!r} repeats a question that models are taught; ask it in other words")
    return found, notes


def _files(folder: Path) -> Iterator[Path]:
    """Yield the paths of all files that may be meant as an `exam.yaml`."""
    for parent, subfolders, names in os.walk(folder):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        yield from (Path(parent, name) for name in names if name.casefold() in ("exam.yaml", "exam.yml"))


def _read(path: Path, file: str, exam: ExamFile) -> None:
    """Read a file into `exam`; what is wrong becomes its problems, and then it has no questions."""
    try:
        located = load_located(path.read_bytes())
    except OSError as error:
        exam.problems.append(_problem(file, f"cannot be read ({error.strerror})"))
        return
    except YamlProblem as error:
        exam.problems.append(_problem(file, error.message, (error.line, error.column)))
        return
    entries = located.value or []
    if not isinstance(entries, list):
        exam.problems.append(_problem(file, f"expected a list of entries with {', '.join(AcceptanceQuestion.model_fields)}"))
        return
    if len(entries) > MOST_QUESTIONS:
        place = located.place((MOST_QUESTIONS,))
        exam.problems.append(_problem(file, f"has {len(entries)} questions, at most {MOST_QUESTIONS} are read", place))
    names: dict[str, int] = {}
    for index, entry in enumerate(entries):
        try:
            question = AcceptanceQuestion.model_validate(entry)
        except ValidationError as error:
            exam.problems += _entry_problems(file, located, index, error)
            continue
        line = located.line((index,))
        if question.name in names:
            message = f"name: {question.name!r} stands at line {names[question.name]} already; give each question its own"
            exam.problems.append(_problem(file, message, located.place((index, "name"))))
        names.setdefault(question.name, line)
        exam.questions.append((question, line))
    if exam.problems:
        exam.questions = []


def _entry_problems(file: str, located: LocatedYaml, index: int, error: ValidationError) -> list[Problem]:
    places = [located.place((index, *problem["loc"])) for problem in error.errors()]
    return [_problem(file, text, place) for text, place in zip(validation_problems(error), places, strict=True)]


def _problem(file: str, message: str, place: tuple[int, int] = (1, 1)) -> Problem:
    return Problem(file, place[0], "error", message, place[1], "exam")
