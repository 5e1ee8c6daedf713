"""Load the general questions: one set measures forgetting and is never trained on, the other is replayed in training."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.rows import GeneralQuestion

SHIPPED = Path(__file__).parents[2] / "data" / "general"
_KEYS = set(GeneralQuestion.__annotations__)


class GeneralSetError(LabError):
    """A general set cannot be read; the message names file and line."""


@dataclass(frozen=True)
class GeneralSets:
    """The general questions: `questions` measure forgetting, `replay` are for training and validation."""

    questions: list[GeneralQuestion]
    replay: list[GeneralQuestion]


def load_general(folder: str | Path | None) -> GeneralSets:
    """Read `questions.jsonl` and `replay.jsonl` of a folder; None means the shipped set.

    Raises:
        GeneralSetError: a file is missing, or a line is no JSON object with exactly the keys of `GeneralQuestion`, none empty.
    """
    folder = Path(folder) if folder else SHIPPED
    return GeneralSets(_load(folder / "questions.jsonl"), _load(folder / "replay.jsonl"))


def _load(path: Path) -> list[GeneralQuestion]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise GeneralSetError(f"{path}: cannot be read ({error.strerror})") from None
    rows: list[GeneralQuestion] = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise GeneralSetError(f"{path}:{number}: not JSON: {error}") from None
        has_keys = isinstance(row, dict) and row.keys() == _KEYS
        if not has_keys or not all(isinstance(value, str) and value.strip() for value in row.values()):
            raise GeneralSetError(f"{path}:{number}: expected the keys {', '.join(sorted(_KEYS))}, each with a text")
        rows.append(cast(GeneralQuestion, row))
    return rows
