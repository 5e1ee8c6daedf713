"""Measure grounding without a judge: how much likelier an answer becomes if the model sees its source.

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
    """Measure rows with the base model in `model_folder`; return their grounding scores, in nats per answer token, by row id.

    Rows with a fault, or without a source, question or answer, get no score. `say` takes the progress.
    """
    complete = [row for row in rows if not row["fault"] and row["support"] and row["question"] and row["answer"]]
    if not complete:
        return {}
    model, tokenizer = _loaded(model_folder)
    texts = [(row["question"], row["answer"], source) for row in complete for source in (row["support"], None)]
    asked = list(dict.fromkeys(texts))  # rows with different sources may share question and answer, so measure these once
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
    """Load the base model and its tokenizer, and keep them for the next leaf."""
    return load_model(folder), load_tokenizer(folder)
