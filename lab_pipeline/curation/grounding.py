"""How much its source makes an answer likelier: grounding without a judge.

The score is log p(answer | source, question) - log p(answer | question) under the base model, per answer token: the pointwise
mutual information of answer and source given the question. What the source says becomes likelier with it; what the model makes
up, or knows anyway, does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab_pipeline.evaluation.likelihood import answer_losses
from lab_pipeline.progress import Say


def grounding_scores(model_folder: Path, rows: list[dict[str, Any]], say: Say) -> dict[str, float]:
    """Grounding (nats per answer token) by row id, of the rows that are complete and have a source."""
    complete = [row for row in rows if row["support"] and row["question"] and row["answer"]]
    texts = [(row["question"], row["answer"], source) for row in complete for source in (row["support"], None)]
    asked = list(dict.fromkeys(texts))
    questions = [{"question": question, "answer": answer, "context": source} for question, answer, source in asked]
    losses = dict(zip(asked, answer_losses(model_folder, questions, say), strict=True))
    return {
        row["id"]: losses[row["question"], row["answer"], None] - losses[row["question"], row["answer"], row["support"]]
        for row in complete
    }
