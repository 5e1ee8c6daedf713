"""Decode requests in a batch whose rows come and go: a row that has ended leaves, and a waiting one takes its place.

Each row has its keys and values in a place of its own, from the first column on. So rows of different lengths need no padding,
and a new row copies the beginning that it shares with a row of the batch, such as the instructions of a flow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AttentionInterface, Cache
from transformers.cache_utils import CacheLayerMixin, get_layer_types_and_kwargs
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from lab_pipeline.models.beginnings import shared_length
from lab_pipeline.teacher.protocol import Request, TeacherError

_COLUMNS = 128
"""The number of columns of the cache is a multiple of this, so that it seldom changes."""
_TOP_K = 50
"""Number of most probable tokens among which the next one is drawn. With a small model all other tokens are noise, and drawing
from them as well would take most of the sampling's time."""
_FULL, _SLIDING = "full_attention", "sliding_attention"


@dataclass(eq=False)
class Row:
    """A request with the tokens of its prompt, the future that tells when it is answered, and what is written so far."""

    request: Request
    prompt: list[int]
    future: asyncio.Future[None]
    written: list[int] = field(default_factory=list)
    stopped: bool = False
    """True if the model ended the reply, with a stop token, which `written` does not hold."""
    logits: torch.Tensor | None = None
    """Logits of the reply's first token, if the request has choices."""

    def __post_init__(self) -> None:
        self.random = torch.Generator().manual_seed(self.request.seed)

    @property
    def columns(self) -> int:
        """Return the number of tokens that the row may come to have."""
        return len(self.prompt) + self.request.max_tokens

    @property
    def answered(self) -> bool:
        return self.stopped or self.logits is not None or len(self.written) == self.request.max_tokens


def attention_types(config: Any) -> set[str]:
    """Return the kinds of a model's layers: attention to all tokens, to the last ones, or both.

    Raises:
        TeacherError: there are layers of other kinds, such as convolutions, which keep no keys and values.
    """
    types = set(get_layer_types_and_kwargs(config.get_text_config(decoder=True))[0])
    if other := types - {_FULL, _SLIDING}:
        raise TeacherError(
            f"layers of the kind {', '.join(sorted(other))} do not run in the embedded teacher; "
            "let a server such as vLLM run the model, and set kind: endpoint"
        )
    return types


class Batch:
    """The rows that are decoded together, at most `size`, and their cache. Raises TeacherError as `attention_types`."""

    def __init__(self, model: Any, stops: Sequence[int], size: int) -> None:
        self._model = model
        self._stops = frozenset(stops)
        self._size = size
        config = model.config.get_text_config(decoder=True)
        self._layer_types = attention_types(config)
        self._window = getattr(config, "sliding_window", None) or 0
        self._layers = [_Layer() for _ in range(config.num_hidden_layers)]
        self._cache = Cache(layers=list(self._layers))
        self._columns = 0
        self.rows: list[Row] = []
        if model.device.type == "cpu" and model.config._attn_implementation == "sdpa":
            AttentionInterface.register("products", _attention_by_products)
            model.set_attn_implementation("products")

    @torch.inference_mode()
    def step(self, joining: Sequence[Row]) -> list[Row]:
        """Take more rows into the batch, decode one token of each row, and return the rows that are answered by it.

        These leave the batch, and so do those whose future is done, which nobody waits for.
        """
        self._resize(max(row.columns for row in [*self.rows, *joining]))
        for row in joining:
            self._join(row)
        last = [[row.written[-1] if row.written else row.prompt[-1]] for row in self.rows]
        lengths = [len(row.prompt) + len(row.written) for row in self.rows]
        logits = self._forward(last, [range(length - 1, length) for length in lengths], 0)
        for row, token, scores in zip(self.rows, draw(logits, self.rows), logits, strict=True):
            if row.request.choices:
                row.logits = scores
            elif token in self._stops:
                row.stopped = True
            else:
                row.written.append(token)
        answered = [row for row in self.rows if row.answered]
        for place in reversed(range(len(self.rows))):
            if self.rows[place].answered or self.rows[place].future.done():
                self._leave(place)
        return answered

    def _join(self, row: Row) -> None:
        """Compute keys and values of a row's prompt but for the last token, which is the input of the row's first step."""
        prompt, place = row.prompt[:-1], len(self.rows)
        lengths = [(shared_length(prompt, other.prompt[:-1]), at) for at, other in enumerate(self.rows)]
        shared, source = max(lengths, default=(0, 0))
        for layer in self._layers:
            layer.copy(source, place, shared)
        if rest := prompt[shared:]:
            self._forward([rest], [range(shared, len(prompt))], place)
        self.rows.append(row)

    def _leave(self, place: int) -> None:
        """Remove a row; the last one takes its place, so that the rows stay together."""
        for layer in self._layers:
            layer.copy(len(self.rows) - 1, place, self._columns)
        self.rows[place] = self.rows[-1]
        self.rows.pop()

    def _resize(self, columns: int) -> None:
        columns = -(-columns // _COLUMNS) * _COLUMNS
        if columns != self._columns:
            self._columns = columns
            for layer in self._layers:
                layer.resize(self._size, columns)

    def _forward(self, tokens: list[list[int]], positions: Sequence[range], place: int) -> torch.Tensor:
        """Return the logits after the last token of each row, from the row at `place` on, and keep keys and values."""
        device = self._model.device
        at = torch.tensor([list(each) for each in positions], device=device)
        for layer in self._layers:
            layer.places, layer.positions = slice(place, place + len(tokens)), at
        output = self._model(
            torch.tensor(tokens, device=device),
            position_ids=at,
            attention_mask=self._masks(at),
            cache=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1].float().cpu()

    def _masks(self, positions: torch.Tensor) -> Any:
        """Return the mask that is added to the attention scores; if the model's layers differ, one for each kind of layer."""
        columns = torch.arange(self._columns, device=positions.device)
        behind = positions[:, None, :, None] - columns
        masks = {}
        for kind in self._layer_types:
            seen = (behind >= 0) & (behind < self._window) if kind == _SLIDING else behind >= 0
            masks[kind] = torch.zeros(seen.shape, dtype=self._model.dtype, device=seen.device).masked_fill(~seen, -torch.inf)
        return masks if len(masks) > 1 else masks.popitem()[1]


class _Layer(CacheLayerMixin):
    """Keys and values of one layer, of shape (rows, heads, columns, dimension); column n has the row's token number n.

    `places` and `positions` tell `update` where the tokens of the forward pass stand. All columns are returned, since products
    of parts of a tensor are slow on a CPU: the mask hides those that are not yet written.
    """

    places: slice
    positions: torch.Tensor

    def resize(self, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        if self.keys is not None and self.values is not None:
            self.keys, self.values = (
                torch.nn.functional.pad(each, (0, 0, 0, columns - each.shape[2])) for each in (self.keys, self.values)
            )

    def copy(self, source: int, target: int, columns: int) -> None:
        if self.keys is not None and self.values is not None and source != target:
            for each in (self.keys, self.values):
                each[target, :, :columns] = each[source, :, :columns]

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.keys, self.values = (
            each.new_zeros(self.rows, each.shape[1], self.columns, each.shape[3]) for each in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        rows = torch.arange(self.places.start, self.places.stop, device=self.positions.device)[:, None]
        self.keys[rows, :, self.positions] = key_states.transpose(1, 2)
        self.values[rows, :, self.positions] = value_states.transpose(1, 2)
        return self.keys[self.places], self.values[self.places]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.columns, 0

    def get_seq_length(self) -> int:
        return self.columns

    def get_max_length(self) -> int:
        return self.columns


def draw(logits: torch.Tensor, rows: Sequence[Row]) -> list[int]:
    """Return the next token of each row: the most probable one or, at a temperature, a sample by the Gumbel-max trick.

    The arg max of `logits / T + Gumbel noise` is a draw from `softmax(logits / T)`. Each row has its own generator of noise,
    so its draws do not depend on the other rows of the batch.
    """
    tokens: list[int] = logits.argmax(-1).tolist()
    for place, row in enumerate(rows):
        if temperature := row.request.temperature:
            likely = logits[place].topk(min(_TOP_K, logits.shape[-1]))
            noise = -torch.log(-torch.log(torch.rand(len(likely.values), generator=row.random).clamp_min(1e-20)))
            tokens[place] = int(likely.indices[(likely.values / temperature + noise).argmax()])
    return tokens


def _attention_by_products(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attend with one token a row as two batched matrix products, on a CPU three to five times as fast as torch's kernel.

    Otherwise this is transformers' sdpa attention.
    """
    rows, heads, tokens, size = query.shape
    if tokens > 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **others)
    together = rows * key.shape[1]  # the query heads of a key head are the lines of one product
    scores = torch.bmm(query.reshape(together, -1, size), key.flatten(0, 1).transpose(1, 2)).view(rows, heads, -1)
    weights = (scores * scaling + attention_mask[:, 0]).softmax(-1, dtype=torch.float32).to(value.dtype)
    attended = torch.bmm(weights.view(together, heads * rows // together, -1), value.flatten(0, 1))
    return attended.view(rows, 1, heads, -1), None
