"""Run a small Hugging Face model as teacher or judge inside this process, and decode requests in batches."""

from __future__ import annotations

import asyncio
from bisect import insort
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab_pipeline.models.loader import load_model, load_tokenizer
from lab_pipeline.models.template import TemplateError, render, stop_tokens
from lab_pipeline.teacher.protocol import Reply, Request, TeacherError

if TYPE_CHECKING:
    from lab_pipeline.teacher.decoding import Row

OTHER_MODEL = "set teacher.model (or judge.model) to an instruct model, or to a folder with a chat_template.jinja of your own"


class EmbeddedTeacher:
    """A teacher or judge that runs the model in a local folder, loaded at the first request.

    Up to `batch_size` requests are decoded together, and waiting ones take the places of those that are done: the longest
    replies first, so that no long one is left over alone at the end, then in the order of their tokens, so that prompts with
    the same beginning meet in the batch, where it is computed once.
    """

    def __init__(self, folder: Path, identity: str, batch_size: int = 32) -> None:
        self.folder = folder
        self.identity = identity
        self.batch_size = batch_size
        self._waiting: list[Row] = []
        self._worker: asyncio.Task[None] | None = None

    async def reply(self, request: Request) -> Reply:
        from lab_pipeline.teacher.decoding import Row

        model, tokenizer = self._loaded
        try:
            text = render(tokenizer, request.turns(), prompt=True)
        except TemplateError as error:
            raise TeacherError(f"{self.identity}: {error}; {OTHER_MODEL}") from None
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        room = model.config.max_position_embeddings
        if len(tokens) + request.max_tokens > room:
            raise TeacherError(f"request of {len(tokens)} + {request.max_tokens} tokens passes the model's {room}")
        row = Row(request, tokens, asyncio.get_running_loop().create_future())
        insort(self._waiting, row, key=lambda other: (-other.request.max_tokens, other.prompt))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._decode_waiting())
        await row.future
        return _scored(row, tokenizer) if request.choices else _written(row, tokenizer)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        return load_model(self.folder), load_tokenizer(self.folder)

    async def _decode_waiting(self) -> None:
        from lab_pipeline.teacher.decoding import Batch

        model, tokenizer = self._loaded
        batch = None
        while self._waiting or (batch and batch.rows):
            await self._let_requests_arrive()
            self._waiting = [row for row in self._waiting if not row.future.done()]  # the others were cancelled
            rows: list[Row] = batch.rows if batch else []
            free = self.batch_size - len(rows)
            joining, self._waiting = self._waiting[:free], self._waiting[free:]
            asked = [*rows, *joining]
            if not asked:
                return
            try:
                batch = batch or Batch(model, stop_tokens(model, tokenizer), self.batch_size)
                for row in await asyncio.to_thread(batch.step, joining):
                    if not row.future.done():
                        row.future.set_result(None)
            except Exception as error:  # whatever the error, no request may wait forever
                batch = None
                for row in asked:
                    if not row.future.done():
                        row.future.set_exception(TeacherError(f"the embedded teacher failed: {error}"))

    async def _let_requests_arrive(self) -> None:
        """Let other coroutines run until they add no more requests, so that the batch is as full as can be."""
        before = -1
        while len(self._waiting) > before:
            before = len(self._waiting)
            for _ in range(10):
                await asyncio.sleep(0)


def _written(row: Row, tokenizer: Any) -> Reply:
    text = tokenizer.decode(row.written, skip_special_tokens=True)
    return Reply(text, "stop" if row.stopped else "length", len(row.prompt), len(row.written) + row.stopped)


def _scored(row: Row, tokenizer: Any) -> Reply:
    """Read the probabilities of the choices from those of their first tokens, normalised over the choices."""
    assert row.logits is not None
    first = [tokenizer.encode(choice, add_special_tokens=False)[0] for choice in row.request.choices]
    probabilities = row.logits[first].softmax(0).tolist()
    scored = dict(zip(row.request.choices, probabilities, strict=True))
    best = max(scored, key=scored.__getitem__)
    return Reply(best, "stop", len(row.prompt), 1, scored)
