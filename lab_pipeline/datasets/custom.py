"""Data sets of one's own: JSONL or Parquet files of conversations, and what `ilab data generate` leaves behind.

A row is `{"messages": [{"role", "content"}, ...]}` with `metadata`, `unmask` and `id` if wanted; further columns go to the
metadata, as upstream does it. Of upstream's files, these are read besides: `train_*.jsonl` (`system`, `user`, `assistant`),
`messages_*.jsonl`, `*_train_msgs_*.jsonl` with its role `pretraining`, and the recipes that list them. A row that is wrong is
kept aside under its file and line; the others are used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import BaseModel, ValidationError

from lab_pipeline.config.settings import DatasetSettings, anchored
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.rows import TRAINING_SCHEMA
from lab_pipeline.core.storage import digest, file_digest
from lab_pipeline.core.validation import validation_problems
from lab_pipeline.datasets.rows import custom_row
from lab_pipeline.datasets.screening import exclusion

_PRETRAINING = re.compile(r"<\|user\|>\n(.*?)\n<\|assistant\|>\n(.*)", re.DOTALL)
"""How upstream writes a turn that is learned whole into one message."""

_ROWS_AT_ONCE = 10_000


class CustomDataError(LabError):
    """A data set cannot be read; the message names file and key."""


class _RowError(Exception):
    """What is wrong with one row."""


class _RecipeHead(BaseModel):
    sys_prompt: str = ""


class _Recipe(BaseModel):
    datasets: list[DatasetSettings]
    metadata: _RecipeHead = _RecipeHead()


def custom_rows(datasets: list[DatasetSettings], seed: int) -> tuple[list[pa.Table], list[dict[str, Any]]]:
    """(rows, wrong rows) of some data sets, under `TRAINING_SCHEMA` and `screening.EXCLUDED_SCHEMA`.

    A part of a data set is chosen by hash of its rows and `seed`. Where upstream repeats rows to reach a number, all are taken
    once. A recipe's system prompt, if it has one, stands before every row of its data sets, as upstream does it.

    Raises:
        CustomDataError: a file is missing or of another kind, or a recipe is wrong.
    """
    chosen, wrong = [], []
    for path, size, system in _files(datasets):
        good, bad = _read(path, system)
        wanted = size if isinstance(size, int) else round(size * len(good))
        if wanted < len(good):
            ranks = [digest([seed, "own", row]) for row in good["id"].to_pylist()]
            places = sorted(sorted(range(len(good)), key=ranks.__getitem__)[:wanted])
            good = good.take(pa.array(places, pa.int64()))
        chosen.append(good)
        wrong += bad
    return chosen, wrong


def custom_contents(datasets: list[DatasetSettings]) -> list[list[Any]]:
    """What the rows of some data sets depend on: their files' bytes, sizes and system prompts.

    Raises:
        CustomDataError: as `custom_rows`.
    """
    contents = []
    for path, size, system in _files(datasets):
        with _readable(path):
            contents.append([file_digest(path), size, system])
    return contents


def _files(datasets: list[DatasetSettings]) -> Iterator[tuple[Path, int | float, str]]:
    """(file, sampling size, system prompt), recipes resolved."""
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


def _read(path: Path, system: str) -> tuple[pa.Table, list[dict[str, Any]]]:
    """(good, wrong) rows of one file."""
    tables, bad = [TRAINING_SCHEMA.empty_table()], []
    good: list[dict[str, Any]] = []
    with _readable(path):
        for number, found in enumerate(_parquet_rows(path) if path.suffix == ".parquet" else _lines(path), 1):
            if found == b"\n":
                continue
            place = f"{path.name}:{number}"
            try:
                good.append(_row(found, system, place))
            except _RowError as error:
                text = found.decode(errors="replace").strip() if isinstance(found, bytes) else json.dumps(found, default=str)
                bad.append(exclusion(place, None, text, "unreadable", f"{path}:{number}: {error}"))
            if len(good) == _ROWS_AT_ONCE:
                tables.append(pa.Table.from_pylist(good, TRAINING_SCHEMA))
                good = []
    return pa.concat_tables([*tables, pa.Table.from_pylist(good, TRAINING_SCHEMA)]), bad


def _lines(path: Path) -> Iterator[bytes | dict[str, Any]]:
    with path.open("rb") as file:
        yield from file


def _parquet_rows(path: Path) -> Iterator[bytes | dict[str, Any]]:
    return (row for batch in pq.ParquetFile(path).iter_batches(_ROWS_AT_ONCE) for row in batch.to_pylist())


def _row(found: bytes | dict[str, Any], system: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(found) if isinstance(found, bytes) else found
        json.dumps(row, ensure_ascii=False).encode()  # Parquet has dates and bytes, JSON half characters
    except (ValueError, TypeError, RecursionError) as error:
        raise _RowError(f"expected a JSON object in UTF-8: {error}") from None
    if not isinstance(row, dict):
        raise _RowError("expected a JSON object")
    said = {"messages", "unmask", "metadata", *_LEGACY}
    unmask = row.get("unmask") or False
    if not isinstance(unmask, bool):
        raise _RowError("unmask: expected true or false")
    messages, whole = _messages(row)
    if system:
        messages = [{"role": "system", "content": system}, *(each for each in messages if each["role"] != "system")]
    metadata = {**_metadata(row.get("metadata")), **{key: value for key, value in row.items() if key not in said}}
    return custom_row(messages, unmask or whole, metadata, place)


_LEGACY = ("system", "user", "assistant")
"""Columns of upstream's `train_*.jsonl`, which are roles."""


def _messages(row: dict[str, Any]) -> tuple[list[dict[str, str]], bool]:
    """The row's messages, and whether upstream wrote them as one text that is learned whole."""
    messages = row.get("messages")
    if messages is None:
        messages = [{"role": role, "content": row[role]} for role in _LEGACY if row.get(role)]
    if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
        raise _RowError("messages: expected a list of objects with role and content")
    messages = [{"role": each.get("role"), "content": each.get("content")} for each in messages]
    if not all(isinstance(each["content"], str) and each["content"].strip() for each in messages):
        raise _RowError("messages: a content is missing or empty")
    before = [each for each in messages[:1] if each["role"] == "system"]
    turns = messages[len(before) :]
    whole = len(turns) == 1 and turns[0]["role"] == "pretraining"
    if whole:
        said = _PRETRAINING.fullmatch(turns[0]["content"])
        if not said:
            raise _RowError("messages: expected <|user|> and <|assistant|> in the content of the role pretraining")
        turns = [{"role": role, "content": text} for role, text in zip(("user", "assistant"), said.groups(), strict=True)]
    if not turns or [each["role"] for each in turns] != ["user", "assistant"] * (len(turns) // 2):
        raise _RowError("messages: expected the roles user and assistant in turn, after a system message if there is one")
    return before + turns, whole


def _metadata(found: Any) -> dict[str, Any]:
    try:
        metadata = json.loads(found) if isinstance(found, str) and found else found or {}
    except ValueError:
        metadata = None
    if not isinstance(metadata, dict):
        raise _RowError("metadata: expected an object, or one as JSON text")
    return metadata
