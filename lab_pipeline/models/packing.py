"""Rows into tokens, tokens into packs: no padding, no cross-contamination, loss where it belongs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lab_pipeline.core.errors import LabError
from lab_pipeline.models.template import Messages, TemplateError, located, rendered, turn_end

IGNORED = -100
"""Label of a token that the loss passes over."""

MEASURE = "own tokens of the answer"
"""What `encode_answers` labels: part of whatever identifies a stored measurement, so that none is compared with one of another
kind."""


class TokenError(LabError):
    """A row cannot be turned into tokens; the message names the row."""


@dataclass(frozen=True)
class TokenRow:
    tokens: list[int]
    labels: list[int]
    """`tokens` where the loss applies, else `IGNORED`; answers include their end token."""


def encode(row: dict[str, Any], tokenizer: Any) -> TokenRow:
    """Tokens and labels of one training row under the model's own chat template.

    The loss covers all that the model must write after each prompt: what the template puts before an answer (such as an empty
    thought), the answer, and the token that ends the turn. With `unmask` it covers everything from the first question on, but
    for the system message.

    Raises:
        TokenError: the template refuses the row, or its answers cannot be located.
    """
    with _of_row(row):
        messages = row["messages"]
        text = rendered(tokenizer, messages)
        learned = []
        for turn, prompt, (_, end) in _answers(tokenizer, messages, text):
            stop = turn_end(tokenizer, messages, turn)
            learned.append((prompt, end + len(stop) if text.startswith(stop, end) else end))
        kept_out = []
        if row["unmask"]:
            first, *_ = (turn for turn, message in enumerate(messages) if message["role"] != "system")
            asked = located(tokenizer, messages, first, text)
            learned.append((asked[0] if asked else 0, len(text)))
            kept_out = [located(tokenizer, messages, turn, text) for turn in range(first)]
        return _labelled(tokenizer, text, learned, [span for span in kept_out if span])


def encode_answers(row: dict[str, Any], tokenizer: Any) -> TokenRow:
    """The row with labels on its answers' own tokens only: how likely these are is what models are measured by.

    How readily a model ends its turn, or writes what its template puts before an answer, says nothing about what it knows.

    Raises:
        TokenError: as `encode`.
    """
    with _of_row(row):
        text = rendered(tokenizer, row["messages"])
        return _labelled(tokenizer, text, [span for *_, span in _answers(tokenizer, row["messages"], text)], [])


@contextmanager
def _of_row(row: dict[str, Any]) -> Iterator[None]:
    try:
        yield
    except TemplateError as error:
        raise TokenError(f"row {row['id']}: {error}") from None


def _answers(tokenizer: Any, messages: Messages, text: str) -> Iterator[tuple[int, int, tuple[int, int]]]:
    """Each answer's turn, where its prompt ends in the rendered `text`, and where its own text begins and ends."""
    for turn, message in enumerate(messages):
        if message["role"] == "assistant":
            prompt = rendered(tokenizer, messages[:turn], prompt=True)
            if not text.startswith(prompt):
                raise TemplateError("the chat template rewrites earlier turns: an answer does not follow its prompt")
            span = located(tokenizer, messages, turn, text)
            if span is None:
                raise TemplateError("the chat template drops an answer")
            yield turn, len(prompt), span


def _labelled(tokenizer: Any, text: str, learned: list[tuple[int, int]], kept_out: list[tuple[int, int]]) -> TokenRow:
    """Tokens of a text, labelled where they overlap with what is learned and not with what is kept out."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    labels = [
        token if _overlaps(place, learned) and not _overlaps(place, kept_out) else IGNORED
        for token, place in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    ]
    return TokenRow(encoded["input_ids"], labels)


def _overlaps(place: tuple[int, int], spans: list[tuple[int, int]]) -> bool:
    return any(place[0] < end and place[1] > start for start, end in spans)


def truncated(row: TokenRow, most: int) -> list[TokenRow]:
    """The row in pieces of at most `most` tokens that still carry loss; what is cut is never dropped in silence."""
    pieces = [
        TokenRow(row.tokens[start : start + most], row.labels[start : start + most])
        for start in range(0, len(row.tokens), most)
    ]
    return [piece for piece in pieces if any(label != IGNORED for label in piece.labels[1:])]


def pack(rows: list[TokenRow], pack_tokens: int) -> list[list[TokenRow]]:
    """Rows into bins of at most `pack_tokens` tokens, by first fit of the longest first."""
    bins: list[list[TokenRow]] = []
    room: list[int] = []
    pieces = [piece for row in rows for piece in truncated(row, pack_tokens)]
    for piece in sorted(pieces, key=lambda piece: len(piece.tokens), reverse=True):
        size = len(piece.tokens)
        place = next((index for index, left in enumerate(room) if left >= size), None)
        if place is None:
            bins.append([])
            room.append(pack_tokens)
            place = len(bins) - 1
        bins[place].append(piece)
        room[place] -= size
    return bins


def flatten(packed: list[TokenRow]) -> dict[str, list[int]]:
    """One pack as model input.

    Position ids restart at each row. Given these and *no* attention mask, transformers builds a block-diagonal mask, so no
    row sees another; a mask of ones given as well would undo that.
    """
    return {
        "input_ids": [token for row in packed for token in row.tokens],
        "position_ids": [position for row in packed for position in range(len(row.tokens))],
        "labels": [label for row in packed for label in [IGNORED, *row.labels[1:]]],
    }
