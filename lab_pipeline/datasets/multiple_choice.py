"""Turn held-out questions into multiple choice: draw wrong choices, and write tasks for lm-eval.

InstructLab tests with questions that the teacher wrote from the same passages as the training rows. These are held-out seeds,
and no training row repeats them.
"""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml

from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import HeldoutQuestion, HeldoutSet, Question, as_prompt
from lab_pipeline.core.storage import digest
from lab_pipeline.datasets.catalog import Catalog, frozen_leaf
from lab_pipeline.text.words import normalised

TAG = "lab_knowledge"
"""The name by which lm-eval runs the tasks of all leaves together."""

MOST_DISTRACTORS = 8
"""Maximum number of wrong choices for a question."""
MOST_CHOICES = 4
"""Maximum number of choices of a question for lm-eval, as in MMLU, on which InstructLab's mmlu_branch is modelled."""

_LOADER = Path(__file__).with_name("lm_eval_questions.py")


def draw_distractors(question: Question, answers: Sequence[str], seed: int) -> list[str]:
    """Draw at most `MOST_DISTRACTORS` of the answers as wrong choices, in an order by hash of seed, question and answer.

    Answers that differ only in case or white space count as one; the question's own answer is left out.
    """
    others = {normalised(answer): answer for answer in sorted(answers)}
    others.pop(normalised(question["answer"]), None)
    prompt = as_prompt(question["question"], question["context"])
    return sorted(others.values(), key=lambda answer: digest([seed, prompt, answer]))[:MOST_DISTRACTORS]


def choice_questions(
    leaf: str, questions: Sequence[HeldoutQuestion], answers: Sequence[str], seed: int
) -> list[dict[str, object]]:
    """Return a leaf's questions as rows of `id`, `leaf`, `question` (with its context), `choices`, and `answer`, which is the
    index of the right choice.

    Each has at most `MOST_CHOICES` choices, in an order by hash. The wrong ones are drawn from `answers`, the answers of the
    leaf's seeds; a question for which there is no wrong choice is left out.
    """
    found: list[dict[str, object]] = []
    for question in questions:
        choices = [question["answer"], *draw_distractors(question, answers, seed)[: MOST_CHOICES - 1]]
        if len(choices) > 1:
            prompt = as_prompt(question["question"], question["context"])[0]["content"]
            choices.sort(key=lambda choice: digest([seed, "order", prompt, choice]))
            right = choices.index(question["answer"])
            found.append({"id": question["id"], "leaf": leaf, "question": prompt, "choices": choices, "answer": right})
    return found


def write_tasks(home: Home, catalog: Catalog, heldout: HeldoutSet, folder: Path, seed: int) -> dict[str, int]:
    """Write to `folder`, for each knowledge leaf in use, its multiple-choice questions (JSONL) and an lm-eval task (YAML), and
    the loader that the tasks call; return the number of questions by leaf.

    Leaves without such questions are skipped. If no leaf has any, not even the folder is made.
    """
    written = {}
    for entry in catalog.in_use:
        leaf = entry["leaf"]
        if entry["kind"] != "knowledge" or leaf not in heldout["leaves"]:
            continue
        held_out = heldout["leaves"][leaf]
        answers = [example["answer"] for example in (*held_out, *frozen_leaf(home, entry)["seeds"])]
        questions = choice_questions(leaf, held_out, answers, seed)
        if questions:
            folder.mkdir(exist_ok=True)
            name = _task_name(leaf)
            lines = "".join(json.dumps(question, ensure_ascii=False) + "\n" for question in questions)
            (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
            (folder / f"{name}.yaml").write_text(_task(leaf, name), encoding="utf-8")
            written[leaf] = len(questions)
    if written:
        shutil.copyfile(_LOADER, folder / "questions.py")
    return written


def _task_name(leaf: str) -> str:
    """Return the name of a leaf's task; its hash tells apart leaves that differ in signs only, such as `a_b/c` and `a/b_c`."""
    return f"lab_{re.sub('[^A-Za-z0-9]+', '_', leaf)[:100].strip('_')}_{digest(leaf)[:6]}"


def _task(leaf: str, name: str) -> str:
    task = {
        "task": name,
        "tag": [TAG],
        "dataset_kwargs": {"file": f"{name}.jsonl"},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in ("acc", "acc_norm")],
        "metadata": {"version": 1.0, "leaf": leaf},
    }
    # lm-eval scores each choice by the probability of its own text, because small models cannot choose among letters.
    return f"custom_dataset: !function questions.load\n{yaml.safe_dump(task, sort_keys=False, allow_unicode=True)}"
