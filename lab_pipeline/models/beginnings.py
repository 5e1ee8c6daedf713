"""Lay rows out as one sequence in which a beginning that several rows share stands, and is computed, once.

Questions about one document begin with it, and the choices of a question begin with the question. Such rows form a tree: each
token sees the tokens before it in its own row and no others (tree attention: Miao et al., *SpecInfer*, ASPLOS 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Layout:
    """Rows as one sequence: its token and position ids, and by row the place of each of its tokens in the sequence."""

    tokens: list[int]
    positions: list[int]
    places: list[list[int]]

    def mask(self) -> torch.Tensor:
        """Return the mask, added to attention scores, by which each token sees its own row up to itself.

        It is in float32, which attention takes whatever the model's own type.
        """
        import torch

        hidden = torch.finfo(torch.float32).min
        mask = torch.full((len(self.tokens), len(self.tokens)), hidden)
        start = 0
        for places in self.places:
            own = slice(start, max(start, places[-1] + 1))
            mask[own, [place for place in places if place < start]] = 0
            mask[own, own].triu_(1)  # what follows stays hidden
            start = own.stop
        return mask[None, None]


def lay_out(rows: Sequence[Sequence[int]], share: bool) -> Layout:
    """Lay out rows of token ids in their order; with `share`, a row uses again what it begins with as the row before it."""
    layout = Layout([], [], [])
    before: Sequence[int] = []
    for tokens in rows:
        shared = shared_length(before, tokens) if share else 0
        own = range(len(layout.tokens), len(layout.tokens) + len(tokens) - shared)
        layout.places.append([*(layout.places[-1][:shared] if shared else []), *own])
        layout.tokens.extend(tokens[shared:])
        layout.positions.extend(range(shared, len(tokens)))
        before = tokens
    return layout


def shared_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Return the number of tokens with which both rows begin."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(first), len(second)))
