"""Load the questions beside this file into lm-eval, wherever the folder is; the task files name this file.

lm_eval --model hf --model_args pretrained=MODEL --include_path THIS_FOLDER --tasks lab_knowledge
"""

import json
from pathlib import Path


def load(file: str, **_: object) -> dict[str, object]:
    """Return the `test` split of one leaf. lm-eval passes `dataset_kwargs` and the task's metadata."""
    from datasets import Dataset

    lines = (Path(__file__).parent / file).read_text(encoding="utf-8").split("\n")
    return {"test": Dataset.from_list([json.loads(line) for line in lines if line])}
