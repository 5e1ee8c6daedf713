"""Load the questions beside this file into lm-eval, wherever the folder is. The task files call `load`. To run them:

lm_eval --model hf --model_args pretrained=MODEL --include_path THIS_FOLDER --tasks lab_knowledge
"""

import json
from pathlib import Path


def load(file: str, **_: object) -> dict[str, object]:
    """Return the questions in `file`, a JSONL file of one leaf, as the split `test`. lm-eval passes more arguments."""
    from datasets import Dataset

    lines = (Path(__file__).parent / file).read_text(encoding="utf-8").split("\n")
    return {"test": Dataset.from_list([json.loads(line) for line in lines if line])}
