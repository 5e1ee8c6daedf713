"""Run a small Hugging Face model as teacher or judge inside this process, and decode requests in batches.

The prompts of a flow begin with the same instructions and examples. The keys and values of this shared prefix are computed once
for a batch, which on a CPU saves most of the work (measured in `benchmarks/teacher.py`).
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab_pipeline.models.loader import load_model, load_tokenizer
from lab_pipeline.models.template import TemplateError, render, stop_tokens
from lab_pipeline.teacher.protocol import Reply, Request, TeacherError

if TYPE_CHECKING:
    import torch


@dataclass
class _Waiting:
    """A request that waits to be decoded, with the tokens of its prompt and the future that receives the reply."""

    request: Request
    tokens: list[int]
    future: asyncio.Future[Reply]

    @property
    def kind(self) -> tuple[bool, int, object]:
        """What all requests of a batch share: whether they have choices, `max_tokens`, and all messages but the last."""
        return bool(self.request.choices), self.request.max_tokens, self.request.messages[:-1]


class EmbeddedTeacher:
    """A teacher or judge that runs the model in a local folder, loaded at the first request.

    Requests that arrive while a batch is decoded wait. The next batch takes up to `batch_size` requests of the kind that most
    waiting requests have (`_Waiting.kind`), the shortest first: requests of similar length need little padding.
    """

    def __init__(self, folder: Path, identity: str, batch_size: int = 32) -> None:
        self.folder = folder
        self.identity = identity
        self.batch_size = batch_size
        self._waiting: list[_Waiting] = []
        self._worker: asyncio.Task[None] | None = None

    async def reply(self, request: Request) -> Reply:
        model, tokenizer = self._loaded
        try:
            text = render(tokenizer, request.turns(), prompt=True)
        except TemplateError as error:
            raise TeacherError(f"{self.identity}: {error}; take another model as the embedded teacher") from None
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        room = model.config.max_position_embeddings
        if len(tokens) + request.max_tokens > room:
            raise TeacherError(f"request of {len(tokens)} + {request.max_tokens} tokens passes the model's {room}")
        waiting = _Waiting(request, tokens, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._decode_waiting())
        return await waiting.future

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        return load_model(self.folder), load_tokenizer(self.folder)

    async def _decode_waiting(self) -> None:
        while self._waiting:
            await self._let_requests_arrive()
            # A future that is done before the request was decoded is that of a cancelled request.
            self._waiting = [waiting for waiting in self._waiting if not waiting.future.done()]
            if not self._waiting:
                return
            kinds = defaultdict(list)
            for waiting in self._waiting:
                kinds[waiting.kind].append(waiting)
            most_frequent = max(kinds.values(), key=len)
            batch = sorted(most_frequent, key=lambda waiting: len(waiting.tokens))[: self.batch_size]
            taken = set(map(id, batch))
            self._waiting = [waiting for waiting in self._waiting if id(waiting) not in taken]
            try:
                work = self._score if batch[0].request.choices else self._write
                replies = await asyncio.to_thread(work, batch)
            except Exception as error:  # whatever the error, no request may wait forever
                for waiting in batch:
                    if not waiting.future.done():
                        waiting.future.set_exception(TeacherError(f"the embedded teacher failed: {error}"))
                continue
            for waiting, reply in zip(batch, replies, strict=True):
                if not waiting.future.done():
                    waiting.future.set_result(reply)

    async def _let_requests_arrive(self) -> None:
        """Let other coroutines run until they add no more requests, so that the next batch is as large as can be."""
        before = -1
        while len(self._waiting) > before:
            before = len(self._waiting)
            for _ in range(10):
                await asyncio.sleep(0)

    def _prefilled(self, batch: list[_Waiting], new_tokens: int) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """Return the batch's tokens, its attention mask, and a cache with the keys and values of the prompts' shared prefix.

        The cache has room for `new_tokens` more tokens than the longest prompt. Shorter prompts are padded after the prefix.
        The mask hides the padding, so any token will do, and positions are counted by the mask.
        """
        import torch
        from transformers import StaticCache

        model, _ = self._loaded
        prefix = os.path.commonprefix([waiting.tokens[:-1] for waiting in batch])  # noqa: RUF071 (of token lists)
        width = max(len(waiting.tokens) for waiting in batch)
        tokens = torch.zeros((len(batch), width), dtype=torch.long)
        mask = torch.ones_like(tokens)
        for row, waiting in enumerate(batch):
            suffix = waiting.tokens[len(prefix) :]
            tokens[row, : len(prefix)] = torch.tensor(prefix)
            tokens[row, width - len(suffix) :] = torch.tensor(suffix)
            mask[row, len(prefix) : width - len(suffix)] = 0
        tokens, mask = tokens.to(model.device), mask.to(model.device)
        cache = StaticCache(config=model.config, max_cache_len=width + new_tokens)
        if prefix:
            computed = model(tokens[:1, : len(prefix)], use_cache=True, logits_to_keep=1).cache
            layers: Any = zip(cache.layers, computed.layers, strict=True)
            for target, source in layers:
                target.update(*(each.expand(len(batch), -1, -1, -1) for each in (source.keys, source.values)))
        return tokens, mask, cache

    def _write(self, batch: list[_Waiting]) -> list[Reply]:
        import torch
        from transformers import LogitsProcessorList

        model, tokenizer = self._loaded
        new_tokens = batch[0].request.max_tokens
        stops = stop_tokens(model, tokenizer)
        with torch.inference_mode():
            tokens, mask, cache = self._prefilled(batch, new_tokens)
            generated = model.generate(
                tokens,
                attention_mask=mask,
                cache=cache,
                do_sample=False,
                max_new_tokens=new_tokens,
                eos_token_id=stops,
                pad_token_id=stops[0],
                logits_processor=LogitsProcessorList([_SampleEachRow([waiting.request for waiting in batch])]),
            )
        replies = []
        for waiting, row in zip(batch, generated[:, tokens.shape[1] :].tolist(), strict=True):
            length = next((index for index, token in enumerate(row) if token in stops), len(row))
            stopped, row = length < len(row), row[:length]
            text = tokenizer.decode(row, skip_special_tokens=True)
            replies.append(Reply(text, "stop" if stopped else "length", len(waiting.tokens), len(row) + stopped))
        return replies

    def _score(self, batch: list[_Waiting]) -> list[Reply]:
        import torch

        model, tokenizer = self._loaded
        with torch.inference_mode():
            tokens, mask, cache = self._prefilled(batch, 0)
            prefix_length = cache.get_seq_length()
            positions = (mask.cumsum(-1) - 1).clamp_min(0)
            suffixes = {"input_ids": tokens[:, prefix_length:], "position_ids": positions[:, prefix_length:]}
            logits = model(**suffixes, attention_mask=mask, cache=cache, logits_to_keep=1).logits[:, -1].float()
        replies = []
        for waiting, row in zip(batch, logits, strict=True):
            first = [tokenizer.encode(choice, add_special_tokens=False)[0] for choice in waiting.request.choices]
            probabilities = torch.softmax(row[first], dim=0).tolist()
            scored = dict(zip(waiting.request.choices, probabilities, strict=True))
            best = max(scored, key=scored.__getitem__)
            replies.append(Reply(best, "stop", len(waiting.tokens), 1, scored))
        return replies


_TOP_K = 50
"""Number of most probable tokens among which the next one is drawn. With a small model all other tokens are noise, and drawing
from them as well would take most of the sampling's time."""


class _SampleEachRow:
    """A logits processor that makes greedy decoding sample each row at its own temperature and seed: the Gumbel-max trick.

    The arg max of `logits / T + Gumbel noise` is a draw from `softmax(logits / T)`. Each row has its own generator of noise,
    so its draws do not depend on the other rows of the batch. Rows with temperature 0 are decoded greedily.
    """

    def __init__(self, requests: list[Request]) -> None:
        import torch

        self.rows = [
            (row, request.temperature, torch.Generator().manual_seed(request.seed))
            for row, request in enumerate(requests)
            if request.temperature > 0
        ]

    def __call__(self, tokens: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        import torch

        for row, temperature, generator in self.rows:
            likely = scores[row].float().topk(min(_TOP_K, scores.shape[-1]))
            noise = -torch.log(-torch.log(torch.rand(len(likely.values), generator=generator).clamp_min(1e-20)))
            drawn = likely.indices[(likely.values / temperature + noise.to(scores.device)).argmax()]
            scores[row] = -torch.inf
            scores[row, drawn] = 0.0
        return scores
