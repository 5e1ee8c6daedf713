"""Ask questions over several documents, of which one or none has the answer: retrieval-augmented fine-tuning (RAFT).

After https://arxiv.org/abs/2403.10131, with the shares of InstructLab's `datamixing.py`. In 40 % of the rows, the prompt has
the passage that the question came from and three other passages of its leaf; in all other rows, it has four other passages. So
the model learns to pick the right passage, and to know the answer without it.
"""

import json
import random

from lab_pipeline.core.rows import TrainingRow, as_prompt
from lab_pipeline.core.storage import digest

GOLD_SHARE = 0.4
DOCUMENTS = 4
"""Number of documents in a prompt; fewer if the leaf has fewer passages."""


def raft_row(row: TrainingRow, gold: str, passages: list[str], seed: int) -> TrainingRow:
    """Return a new row that asks a knowledge row's question after documents, drawn by hash of the row and `seed`.

    Its metadata record the number of documents, and whether the gold passage is among them (`answered`).

    Args:
        gold: text of the passage that the row was made from; it is the only document if the leaf has no other passage.
        passages: texts of all passages of the leaf.
    """
    draw = random.Random(digest([seed, "raft", row["id"]]))
    others = [passage for passage in passages if passage != gold]
    with_gold = draw.random() < GOLD_SHARE or not others
    documents = draw.sample(others, min(DOCUMENTS - with_gold, len(others))) + [gold] * with_gold
    draw.shuffle(documents)
    context = "\n".join(f"Document:\n{document}\n\n" for document in documents)
    question, answer = row["messages"]
    metadata = {**json.loads(row["metadata"]), "documents": len(documents), "answered": with_gold}
    return {
        **row,
        "id": digest(["raft", row["id"]]),
        "messages": [*as_prompt(question["content"], context), answer],
        "metadata": json.dumps(metadata, sort_keys=True, ensure_ascii=False),
        "source": "raft",
        "source_row": row["id"],
    }
