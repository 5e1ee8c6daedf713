"""Parse rows of custom data sets, in the formats that InstructLab reads and writes.

A row is `{"messages": [{"role", "content"}, ...]}`, optionally with `metadata`, `unmask` and `id`; further columns go to the
metadata, as upstream does it. Files of `ilab data generate` are also read: `train_*.jsonl` (`system`, `user`, `assistant`),
`messages_*.jsonl`, and `*_train_msgs_*.jsonl` with its role `pretraining`.
"""

import json
import re
from typing import cast

from lab_pipeline.core.rows import TrainingRow, Turn
from lab_pipeline.datasets.rows import custom_row

_PRETRAINING = re.compile(r"<\|user\|>\n(.*?)\n<\|assistant\|>\n(.*)", re.DOTALL)
"""Content of the role `pretraining`: question and answer in one text, which upstream trains on as a whole."""

_ROLE_COLUMNS = ("system", "user", "assistant")
"""Columns of upstream's `train_*.jsonl`, each with the text of one message; read in rows without `messages`."""

_COLUMNS = {"messages", "unmask", "metadata", *_ROLE_COLUMNS}


class RowError(Exception):
    """A row cannot be used; the message names the key and what was expected."""


def parse_row(raw: bytes | dict[str, object], system_prompt: str, place: str) -> TrainingRow:
    """Convert a JSON line, or a row of a Parquet file, to a training row of the source `own`.

    Args:
        system_prompt: replaces the row's own system message; '' leaves it.
        place: file name and line, which become the `source_row`.

    Raises:
        RowError: the row is no JSON object in UTF-8, or one of its keys is wrong.
    """
    try:
        row = json.loads(raw) if isinstance(raw, bytes) else raw
        json.dumps(row, ensure_ascii=False).encode()  # fails on dates and bytes of Parquet, and on lone surrogates of JSON
    except (ValueError, TypeError, RecursionError) as error:
        raise RowError(f"expected a JSON object in UTF-8: {error}") from None
    if not isinstance(row, dict):
        raise RowError("expected a JSON object")
    unmask = row.get("unmask") or False
    if not isinstance(unmask, bool):
        raise RowError("unmask: expected true or false")
    messages, is_pretraining = _messages(row)
    if system_prompt:
        messages = [{"role": "system", "content": system_prompt}, *(turn for turn in messages if turn["role"] != "system")]
    further = {key: value for key, value in row.items() if key not in _COLUMNS}
    return custom_row(messages, unmask or is_pretraining, {**_metadata(row.get("metadata")), **further}, place)


def _messages(row: dict[str, object]) -> tuple[list[Turn], bool]:
    """Return the row's messages (a system message if it has one, then user and assistant in turn), and whether user and
    assistant came as one text of the role `pretraining`, which is split. Raise RowError for any other messages."""
    found = row.get("messages")
    if found is None:
        found = [{"role": role, "content": row[role]} for role in _ROLE_COLUMNS if row.get(role)]
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise RowError("messages: expected a list of objects with role and content")
    messages = [cast(Turn, {"role": each.get("role"), "content": each.get("content")}) for each in found]
    if not all(isinstance(each["content"], str) and each["content"].strip() for each in messages):
        raise RowError("messages: a content is missing or empty")
    system = [each for each in messages[:1] if each["role"] == "system"]
    turns = messages[len(system) :]
    is_pretraining = len(turns) == 1 and turns[0]["role"] == "pretraining"
    if is_pretraining:
        match = _PRETRAINING.fullmatch(turns[0]["content"])
        if not match:
            raise RowError("messages: expected <|user|> and <|assistant|> in the content of the role pretraining")
        turns = [{"role": "user", "content": match[1]}, {"role": "assistant", "content": match[2]}]
    if not turns or [each["role"] for each in turns] != ["user", "assistant"] * (len(turns) // 2):
        raise RowError("messages: expected the roles user and assistant in turn, after a system message if there is one")
    return system + turns, is_pretraining


def _metadata(value: object) -> dict[str, object]:
    try:
        metadata = json.loads(value) if isinstance(value, str) and value else value or {}
    except ValueError:
        metadata = None
    if not isinstance(metadata, dict):
        raise RowError("metadata: expected an object, or one as JSON text")
    return metadata
