"""Measure grounding without a judge: how much likelier its source makes an answer.

The score is log p(answer | source, question) - log p(answer | question) under the base model, per answer token: the pointwise
mutual information of answer and source given the question. It is high for what the source says, and low for what the teacher
made up or the model knows anyway.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from lab_pipeline.core.progress import Progress, Say
from lab_pipeline.core.rows import JudgedRow
from lab_pipeline.models.likelihood import as_row, row_losses
from lab_pipeline.models.loader import load_model, load_tokenizer
from lab_pipeline.models.packing import encode_answers

_PACK_TOKENS = 1024


def grounding_scores(model_folder: Path, rows: Sequence[JudgedRow], say: Say) -> dict[str, float]:
    """Return grounding scores (nats per answer token) by row id, of the rows that are complete and have a source."""
    complete = [row for row in rows if not row["fault"] and row["support"] and row["question"] and row["answer"]]
    if not complete:
        return {}
    model, tokenizer = _loaded(model_folder)
    texts = [(row["question"], row["answer"], source) for row in complete for source in (row["support"], None)]
    asked = list(dict.fromkeys(texts))  # rows of two sources may share the pair without a source
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
    """Load the base model, and keep it for the next leaf."""
    return load_model(folder), load_tokenizer(folder)
