"""How much its source makes an answer likelier: grounding without a judge.

The score is log p(answer | source, question) - log p(answer | question) under the base model, per answer token: the pointwise
mutual information of answer and source given the question. What the source says becomes likelier with it; what the teacher
makes up does not, nor what the model knows anyway.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from lab_pipeline.core.progress import Progress, Say
from lab_pipeline.models.likelihood import as_row, row_losses
from lab_pipeline.models.loader import load_model, load_tokenizer
from lab_pipeline.models.packing import encode_answers

_PACK_TOKENS = 1024


def grounding_scores(model_folder: Path, rows: list[dict[str, Any]], say: Say) -> dict[str, float]:
    """Grounding (nats per answer token) by row id, of the rows that are complete and have a source."""
    complete = [row for row in rows if not row["fault"] and row["support"] and row["question"] and row["answer"]]
    if not complete:
        return {}
    model, tokenizer = _loaded(model_folder)
    texts = [(row["question"], row["answer"], source) for row in complete for source in (row["support"], None)]
    asked = list(dict.fromkeys(texts))  # two answers to one question share nothing, but rows of two sources do
    encoded = [
        encode_answers(as_row({"question": question, "answer": answer, "context": source}), tokenizer)
        for question, answer, source in asked
    ]
    progress = Progress("answers grounded", len(asked), say)
    losses = row_losses(model, encoded, _PACK_TOKENS, progress.advance)
    by_text = dict(zip(asked, losses, strict=True))
    return {
        row["id"]: by_text[row["question"], row["answer"], None] - by_text[row["question"], row["answer"], row["support"]]
        for row in complete
    }


@lru_cache(maxsize=1)
def _loaded(folder: Path) -> tuple[Any, Any]:
    """The base model, kept for the next leaf."""
    return load_model(folder), load_tokenizer(folder)
