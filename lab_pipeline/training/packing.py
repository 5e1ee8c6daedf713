"""Rows into tokens, tokens into packs: no padding, no cross-contamination, loss where it belongs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lab_pipeline.errors import LabError

IGNORED = -100
"""Label of a token that the loss passes over."""


class TokenError(LabError):
    """A row cannot be turned into tokens; the message names the row."""


@dataclass(frozen=True)
class TokenRow:
    tokens: list[int]
    labels: list[int]
    """`tokens` where the loss applies, else `IGNORED`; answers include their end token."""


def encode(row: dict[str, Any], tokenizer: Any) -> TokenRow:
    """Tokens and labels of one training row under the model's own chat template.

    The loss covers each assistant message and its end token; with `unmask`, everything but the system message.

    Raises:
        TokenError: the chat template does not extend a conversation by appending to it, so answers cannot be located.
    """
    messages = row["messages"]
    tokens = _template(tokenizer, messages)
    labels = [IGNORED] * len(tokens)
    for turn, message in enumerate(messages):
        if message["role"] == "assistant":
            start = len(_template(tokenizer, messages[:turn], prompt=True))
            end = len(_template(tokenizer, messages[: turn + 1]))
            if _template(tokenizer, messages[:turn], prompt=True) != tokens[:start]:
                raise TokenError(f"row {row['id']}: the chat template rewrites earlier turns")
            end = start + _to_end_token(tokens[start:end], tokenizer.eos_token_id)
            labels[start:end] = tokens[start:end]
    if row["unmask"]:
        system = len(_template(tokenizer, messages[:1])) if messages[0]["role"] == "system" else _preamble(tokenizer)
        labels[system:] = tokens[system:]
    return TokenRow(tokens, labels)


def _template(tokenizer: Any, messages: list[dict[str, str]], prompt: bool = False) -> list[int]:
    return tokenizer.apply_chat_template(messages, add_generation_prompt=prompt)["input_ids"]


def _preamble(tokenizer: Any) -> int:
    """Tokens that the template puts before any conversation, such as a default system message."""
    one, other = (_template(tokenizer, [{"role": "user", "content": text}]) for text in ("a b", "Z"))
    return next((index for index, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), 0)


def _to_end_token(answer: list[int], end_token: int) -> int:
    return answer.index(end_token) + 1 if end_token in answer else len(answer)


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
