"""Read custom data sets: JSONL or Parquet files of conversations, and InstructLab recipes (YAML) that list such files.

`custom_format` describes the rows. A wrong row is excluded and reported with its file and line; all other rows are used.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import BaseModel, ValidationError

from lab_pipeline.config.settings import DatasetSettings, anchored
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.rows import TRAINING_SCHEMA, ExcludedRow, TrainingRow
from lab_pipeline.core.storage import digest, file_digest
from lab_pipeline.core.validation import validation_problems
from lab_pipeline.datasets.custom_format import RowError, parse_row
from lab_pipeline.datasets.exclusion import Exclusion, excluded_row

_BATCH_ROWS = 10_000


class CustomDataError(LabError):
    """A custom data set cannot be read; the message names file and key."""


class _RecipeMetadata(BaseModel):
    sys_prompt: str = ""


class _Recipe(BaseModel):
    """A recipe in the format of instructlab-sdg."""

    datasets: list[DatasetSettings]
    metadata: _RecipeMetadata = _RecipeMetadata()


def custom_rows(datasets: list[DatasetSettings], seed: int) -> tuple[list[pa.Table], list[ExcludedRow]]:
    """Read custom data sets; return their rows, one table under `TRAINING_SCHEMA` for each file, and the unreadable rows.

    From each file, take as many rows as its sampling size says, a number or a share, chosen by hash of the row's id and `seed`.
    Where upstream repeats rows to reach a number, all are taken once. A recipe's system prompt, if it has one, replaces the
    system message of each row, as upstream does it.

    Raises:
        CustomDataError: a file is missing or of another kind, or a recipe is wrong.
    """
    tables, unreadable = [], []
    for path, size, system_prompt in _files(datasets):
        rows, errors = _read(path, system_prompt)
        wanted = size if isinstance(size, int) else round(size * len(rows))
        if wanted < len(rows):
            ranks = [digest([seed, "own", row]) for row in rows["id"].to_pylist()]
            sample = sorted(sorted(range(len(rows)), key=ranks.__getitem__)[:wanted])
            rows = rows.take(pa.array(sample, pa.int64()))
        tables.append(rows)
        unreadable += errors
    return tables, unreadable


def custom_contents(datasets: list[DatasetSettings]) -> list[tuple[str, int | float, str]]:
    """Return all that the rows of custom data sets depend on: (hash, sampling size, system prompt) of each file.

    Raises:
        CustomDataError: a file cannot be read, or a recipe is wrong.
    """
    contents = []
    for path, size, system_prompt in _files(datasets):
        with _readable(path):
            contents.append((file_digest(path), size, system_prompt))
    return contents


def _files(datasets: list[DatasetSettings]) -> Iterator[tuple[Path, int | float, str]]:
    """Yield (path, sampling size, system prompt) of each file. A recipe is replaced by the files that it lists, whose paths
    start at the recipe's folder; a file outside a recipe has the system prompt ''."""
    for dataset in datasets:
        path = Path(dataset.path)
        if path.suffix in (".yaml", ".yml"):
            recipe = _load_recipe(path)
            for each in recipe.datasets:
                yield Path(anchored(each, path.parent).path), each.sampling_size, recipe.metadata.sys_prompt
        else:
            yield path, dataset.sampling_size, ""


def _load_recipe(path: Path) -> _Recipe:
    try:
        with _readable(path):
            return _Recipe.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CustomDataError(f"{path}: not valid YAML: {error}") from None
    except ValidationError as error:
        raise CustomDataError(f"{path}: {validation_problems(error)[0]}") from None


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CustomDataError(f"{path}: cannot be read ({error.strerror}); see `mixing` in settings.yaml") from None
    except pa.ArrowInvalid as error:
        raise CustomDataError(f"{path}: not a Parquet file ({error})") from None


def _read(path: Path, system_prompt: str) -> tuple[pa.Table, list[ExcludedRow]]:
    """Read one file; return its rows as a table, and the unreadable rows. Empty lines are skipped."""
    tables, unreadable = [TRAINING_SCHEMA.empty_table()], []
    rows: list[TrainingRow] = []
    with _readable(path):
        for number, raw in enumerate(_raw_rows(path), 1):
            if raw == b"\n":
                continue
            place = f"{path.name}:{number}"
            try:
                rows.append(parse_row(raw, system_prompt, place))
            except RowError as error:
                text = raw.decode(errors="replace").strip() if isinstance(raw, bytes) else json.dumps(raw, default=str)
                unreadable.append(excluded_row(place, None, text, Exclusion("unreadable", f"{path}:{number}: {error}")))
            if len(rows) == _BATCH_ROWS:
                tables.append(pa.Table.from_pylist(rows, TRAINING_SCHEMA))
                rows = []
    return pa.concat_tables([*tables, pa.Table.from_pylist(rows, TRAINING_SCHEMA)]), unreadable


def _raw_rows(path: Path) -> Iterator[bytes | dict[str, object]]:
    """Yield the rows of a Parquet file as dictionaries, or the lines of any other file as bytes."""
    if path.suffix == ".parquet":
        for batch in pq.ParquetFile(path).iter_batches(_BATCH_ROWS):
            yield from batch.to_pylist()
    else:
        with path.open("rb") as file:
            yield from file
