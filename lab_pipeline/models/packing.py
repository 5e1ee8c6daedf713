"""Encode rows as tokens and pack them: no padding, no attention between rows, loss on the answers only."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypedDict

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.rows import Turn
from lab_pipeline.models.template import Messages, TemplateError, locate, render, turn_end

IGNORED = -100
"""Label of a token without loss."""

MEASURE = "own tokens of the answer"
"""Names what `encode_answers` labels. It enters the key of each stored measurement: never compare different measures."""

Span = tuple[int, int]


class TokenError(LabError):
    """A row cannot be turned into tokens; the message names the row."""


class Conversation(TypedDict):
    """The columns of a training row that decide its tokens and labels."""

    id: str
    messages: list[Turn]
    unmask: bool


@dataclass(frozen=True)
class TokenRow:
    """Tokens and labels of one row or a piece of it."""

    tokens: list[int]
    labels: list[int]
    """`tokens` where the loss applies, else `IGNORED`; answers include their end token."""

    @property
    def learned(self) -> int:
        """Number of tokens with loss; the first token of a row is never predicted."""
        labels = self.labels[1:]
        return len(labels) - labels.count(IGNORED)


def encode(row: Conversation, tokenizer: Any) -> TokenRow:
    """Encode a training row under the model's own chat template.

    The loss covers all that the model must write after each prompt: what the template puts before an answer (such as an empty
    thought), the answer, and the token that ends the turn. With `unmask` it covers everything from the first question on,
    except system messages.

    Raises:
        TokenError: the template refuses the row, or its answers cannot be located.
    """
    with _naming(row):
        messages = row["messages"]
        text = render(tokenizer, messages)
        learned = []
        for turn, prompt_end, (_, end) in _answers(tokenizer, messages, text):
            stop = turn_end(tokenizer, messages, turn)
            learned.append((prompt_end, end + len(stop) if text.startswith(stop, end) else end))
        system: list[Span | None] = []
        if row["unmask"]:
            first = next(turn for turn, message in enumerate(messages) if message["role"] != "system")
            question = locate(tokenizer, messages, first, text)
            learned.append((question[0] if question else 0, len(text)))
            system = [locate(tokenizer, messages, turn, text) for turn in range(first)]
        return _labelled(tokenizer, text, learned, [span for span in system if span])


def encode_answers(row: Conversation, tokenizer: Any) -> TokenRow:
    """Encode a row with labels on the text of its answers only, to measure a model by their likelihood.

    How likely a model ends its turn, or writes what its template puts before an answer, says nothing about what it knows.

    Raises:
        TokenError: as `encode`.
    """
    with _naming(row):
        text = render(tokenizer, row["messages"])
        return _labelled(tokenizer, text, [span for *_, span in _answers(tokenizer, row["messages"], text)], [])


@contextmanager
def _naming(row: Conversation) -> Iterator[None]:
    """Turn a template's error into one that names the row."""
    try:
        yield
    except TemplateError as error:
        raise TokenError(f"row {row['id']}: {error}") from None


def _answers(tokenizer: Any, messages: Messages, text: str) -> Iterator[tuple[int, int, Span]]:
    """Yield each answer's turn, the end of its prompt in the rendered `text`, and the span of the answer itself."""
    for turn, message in enumerate(messages):
        if message["role"] == "assistant":
            prompt = render(tokenizer, messages[:turn], prompt=True)
            if not text.startswith(prompt):
                raise TemplateError("the chat template rewrites earlier turns: an answer does not follow its prompt")
            span = locate(tokenizer, messages, turn, text)
            if span is None:
                raise TemplateError("the chat template drops an answer")
            yield turn, len(prompt), span


def _labelled(tokenizer: Any, text: str, learned: list[Span], excluded: list[Span]) -> TokenRow:
    """Encode a text, with labels on tokens that overlap a learned span and no excluded one."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    labels = [
        token if _overlaps(span, learned) and not _overlaps(span, excluded) else IGNORED
        for token, span in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    ]
    return TokenRow(encoded["input_ids"], labels)


def _overlaps(span: Span, others: list[Span]) -> bool:
    return any(span[0] < end and span[1] > start for start, end in others)


def split_row(row: TokenRow, most: int) -> list[TokenRow]:
    """Split a row into pieces of at most `most` tokens; pieces without loss are left out."""
    starts = range(0, len(row.tokens), most)
    pieces = [TokenRow(row.tokens[start : start + most], row.labels[start : start + most]) for start in starts]
    return [piece for piece in pieces if piece.learned]


def pack(rows: Sequence[TokenRow], pack_tokens: int) -> list[list[TokenRow]]:
    """Pack rows into bins of at most `pack_tokens` tokens, by best fit of the longest first.

    Each row goes into the fullest bin that still has room for it. Bins with the same room lie on one stack, so the bin is found
    by bisection over the different rooms, of which there are at most `pack_tokens`.
    """
    bins: list[list[TokenRow]] = []
    by_room: dict[int, list[list[TokenRow]]] = {}
    rooms: list[int] = []
    """The keys of `by_room`, in ascending order."""
    pieces = [piece for row in rows for piece in split_row(row, pack_tokens)]
    for piece in sorted(pieces, key=lambda piece: len(piece.tokens), reverse=True):
        size = len(piece.tokens)
        place = bisect_left(rooms, size)
        if place == len(rooms):
            room = pack_tokens
            chosen: list[TokenRow] = []
            bins.append(chosen)
        else:
            room = rooms[place]
            chosen = by_room[room].pop()
            if not by_room[room]:
                del by_room[room], rooms[place]
        chosen.append(piece)
        left = room - size
        if left not in by_room:
            by_room[left] = []
            insort(rooms, left)
        by_room[left].append(chosen)
    return bins


def flatten(packed: list[TokenRow]) -> dict[str, list[int]]:
    """Join the rows of one pack as model input.

    Position ids restart at each row. Given these and *no* attention mask, transformers builds a block-diagonal mask, so no
    row attends to another. Passing a mask of ones as well would undo that.
    """
    return {
        "input_ids": [token for row in packed for token in row.tokens],
        "position_ids": [position for row in packed for position in range(len(row.tokens))],
        "labels": [label for row in packed for label in [IGNORED, *row.labels[1:]]],
    }
