"""Encode rows as tokens with labels, and pack several rows into one sequence.

A pack needs no padding, and no row in it attends to another. Labels mark the tokens that the loss covers.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypedDict

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.rows import Turn
from lab_pipeline.models.template import Messages, TemplateError, locate, render, turn_end

IGNORED = -100
"""Label of a token that the loss does not cover."""

MEASURE = "own tokens of the answer"
"""Name of what `encode_answers` labels. It is part of the key of each stored measurement, so that losses over other tokens are
never compared with these. Rename it whenever `encode_answers` labels other tokens."""

Span = tuple[int, int]


class TokenError(LabError):
    """A row cannot be turned into tokens; the message names the row."""


class Conversation(TypedDict):
    """The columns of a training row that encoding reads.

    `messages` and `unmask` decide tokens and labels; `id` names the row in errors.
    """

    id: str
    messages: list[Turn]
    unmask: bool


@dataclass(frozen=True)
class TokenRow:
    """Token ids and labels of one row, or of a piece of a row that is longer than a pack."""

    tokens: list[int]
    labels: list[int]
    """One for each token: its id where the loss covers the token, else `IGNORED`."""

    @property
    def learned(self) -> int:
        """Number of tokens that the loss covers; the first token never counts, because nothing predicts it."""
        labels = self.labels[1:]
        return len(labels) - labels.count(IGNORED)


def encode(row: Conversation, tokenizer: Any) -> TokenRow:
    """Encode a training row by the model's own chat template, with labels for training.

    The loss covers all that the model must write after each prompt: what the template puts before an answer (such as an empty
    thought), the answer, and the token that ends the turn. If the row has `unmask`, the loss covers everything from the first
    message after the leading system messages on; it never covers these, wherever the template puts them.

    Raises:
        TokenError: the template refuses the row, drops an answer, or writes it so that it cannot be located.
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
    """Encode a row with labels on the text of its answers only, to measure a model by its loss on them.

    Unlike in `encode`, the end of the turn and what the template puts before an answer have no labels: how likely a model
    writes these says nothing about what it knows. `unmask` has no effect.

    Raises:
        TokenError: as `encode`.
    """
    with _naming(row):
        text = render(tokenizer, row["messages"])
        return _labelled(tokenizer, text, [span for *_, span in _answers(tokenizer, row["messages"], text)], [])


@contextmanager
def _naming(row: Conversation) -> Iterator[None]:
    try:
        yield
    except TemplateError as error:
        raise TokenError(f"row {row['id']}: {error}") from None


def _answers(tokenizer: Any, messages: Messages, text: str) -> Iterator[tuple[int, int, Span]]:
    """Yield, for each assistant message, (its index, where its prompt ends, the span of the answer).

    The last two are in characters of `text`, the rendered conversation. The prompt ends with the answer's header.

    Raises:
        TemplateError: the template drops an answer, or an answer cannot be located after its prompt.
    """
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
    """Encode a text; label the tokens that overlap a `learned` span of its characters and no `excluded` span."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    labels = [
        token if _overlaps(span, learned) and not _overlaps(span, excluded) else IGNORED
        for token, span in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    ]
    return TokenRow(encoded["input_ids"], labels)


def _overlaps(span: Span, others: list[Span]) -> bool:
    return any(span[0] < end and span[1] > start for start, end in others)


def split_row(row: TokenRow, most: int) -> list[TokenRow]:
    """Cut a row into consecutive pieces of at most `most` tokens; leave out pieces in which the loss covers no token."""
    pieces = [row]  # nearly all rows fit, and a copy of each would double time and memory
    if len(row.tokens) > most:
        starts = range(0, len(row.tokens), most)
        pieces = [TokenRow(row.tokens[start : start + most], row.labels[start : start + most]) for start in starts]
    return [piece for piece in pieces if any(label != IGNORED for label in islice(piece.labels, 1, None))]


def pack(lengths: Sequence[int], pack_tokens: int) -> list[list[int]]:
    """Pack rows of these lengths, each at most `pack_tokens`, into bins of that size: the longest first, each by best fit.

    Return the indices of each bin's rows. Each row goes into the fullest bin that still has room for it. Bins with the same
    room lie on one stack, so that bin is found by bisection over the different rooms, of which there are at most
    `pack_tokens`.
    """
    bins: list[list[int]] = []
    by_room: dict[int, list[list[int]]] = {}
    rooms: list[int] = []
    """The keys of `by_room`, in ascending order."""
    for row in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        size = lengths[row]
        place = bisect_left(rooms, size)
        if place == len(rooms):
            room = pack_tokens
            chosen: list[int] = []
            bins.append(chosen)
        else:
            room = rooms[place]
            chosen = by_room[room].pop()
            if not by_room[room]:
                del by_room[room], rooms[place]
        chosen.append(row)
        left = room - size
        if left not in by_room:
            by_room[left] = []
            insort(rooms, left)
        by_room[left].append(chosen)
    return bins


def flatten(packed: list[TokenRow]) -> dict[str, list[int]]:
    """Join the rows of one pack into a model's input: token ids, position ids and labels.

    Position ids restart at 0 with each row, and a row's first token has no label. Given such position ids and *no* attention
    mask, transformers builds a block-diagonal mask, so that no row attends to another. A mask of ones would undo that.
    """
    return {
        "input_ids": [token for row in packed for token in row.tokens],
        "position_ids": [position for row in packed for position in range(len(row.tokens))],
        "labels": [label for row in packed for label in [IGNORED, *row.labels[1:]]],
    }
