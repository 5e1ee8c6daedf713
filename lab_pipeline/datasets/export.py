"""A home's data sets as other tools read them, in one folder that can be moved.

- `PHASE_PART_msgs.jsonl`: rows of `id`, `messages`, `metadata` (JSON text) and `unmask`, as instructlab-training and
  training_hub read them, and `PHASE_recipe.yaml`, which names the training part as instructlab-sdg's recipes do: paths start at
  the recipe's folder. A phase without rows has neither.
- `multiple_choice/`: for each knowledge leaf its held-out questions, and a task file for lm-eval. InstructLab asks what the
  teacher wrote from the passages that it also trains on; these no training row has seen.
- `README.md`: a data-set card as the Hugging Face hub wants it.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from lab_pipeline.config.settings import Settings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import as_prompt
from lab_pipeline.core.storage import digest, read_json, written_whole
from lab_pipeline.datasets.catalog import Catalog, current_catalog
from lab_pipeline.datasets.data_card import data_card
from lab_pipeline.datasets.dataset import Dataset, Phase, load_dataset, require_agreement
from lab_pipeline.datasets.heldout_questions import draw_distractors, load_heldout
from lab_pipeline.datasets.mix import stated_licences
from lab_pipeline.datasets.rows import licensed
from lab_pipeline.taxonomy.snapshot import load_snapshot

TAG = "lab_knowledge"
"""lm-eval's name for the questions of all leaves together."""

MOST_CHOICES = 4
"""As in MMLU, on which InstructLab's mmlu_branch is modelled."""

_LOADER = Path(__file__).with_name("lm_eval_questions.py")


def export_datasets(home: Home, phases: list[Phase], folder: Path, settings: Settings) -> list[str]:
    """Write the current data sets of these phases into a new folder; returns its files' names, sorted.

    Args:
        settings: the home's; wrong choices and the order of all choices are drawn by their seed.

    Raises:
        LabError: the folder exists already.
        NotMaterialized: a data set, or the held-out questions, were not materialized yet, or not since the catalog.
    """
    if folder.exists():
        raise LabError(f"{folder}: exists already; name a new folder for the export")
    datasets = {phase: load_dataset(home, phase) for phase in phases}
    catalog, heldout = current_catalog(home), load_heldout(home)
    require_agreement(datasets.values(), catalog, heldout, settings)
    snapshot = load_snapshot(home, catalog.snapshot)
    stated = stated_licences(snapshot)
    with written_whole(folder) as scratch:
        scratch.mkdir()
        parts = {phase: _write_rows(dataset, stated, scratch) for phase, dataset in datasets.items()}
        for phase in phases:
            if "train" not in parts[phase]:
                continue  # no rows, as phase 1 of a taxonomy without knowledge
            recipe = {"datasets": [{"path": _file(phase, "train"), "sampling_size": 1.0}], "metadata": {"sys_prompt": ""}}
            (scratch / f"{phase}_recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
        asked = {}
        if "knowledge" in phases:
            asked = _write_questions(home, catalog, heldout, scratch / "multiple_choice", settings.seed)
        card = data_card(parts, {phase: datasets[phase].digest for phase in phases}, asked, snapshot)
        (scratch / "README.md").write_text(card, encoding="utf-8")
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def exported_row(row: dict[str, Any]) -> dict[str, Any]:
    """A training row as InstructLab's tools have it; what they have no column for goes into the metadata."""
    metadata = {**json.loads(row["metadata"]), **{name: row[name] for name in ("leaf", "source", "source_row")}}
    return {
        "id": row["id"],
        "messages": row["messages"],
        "metadata": json.dumps(metadata, sort_keys=True, ensure_ascii=False),
        "unmask": row["unmask"],
    }


def choice_questions(leaf: str, questions: list[dict[str, Any]], answers: list[str], seed: int) -> list[dict[str, Any]]:
    """A leaf's questions with at most `MOST_CHOICES` choices each; those that have no wrong one are left out.

    `choices` are answers, the leaf's other ones beside the right one, in an order by hash; `answer` is the right one's index.
    """
    found = []
    for question in questions:
        choices = [question["answer"], *draw_distractors(question, answers, seed)[: MOST_CHOICES - 1]]
        if len(choices) > 1:
            asked = as_prompt(question["question"], question["context"])[0]["content"]
            ordered = sorted(choices, key=lambda choice: digest([seed, "order", asked, choice]))
            right = ordered.index(question["answer"])
            found.append({"id": question["id"], "leaf": leaf, "question": asked, "choices": ordered, "answer": right})
    return found


def _write_rows(dataset: Dataset, stated: dict[str, list[str]], folder: Path) -> dict[str, Counter[tuple[str | None, str]]]:
    """Write each part's rows, in the data set's order; returns how many of which leaf and source each part has."""
    counts: dict[str, Counter[tuple[str | None, str]]] = {}
    files = {}
    try:
        for row in _rows(dataset, stated):
            part = row["part"]
            if part not in files:
                files[part] = (folder / _file(dataset.phase, part)).open("w", encoding="utf-8")
                counts[part] = Counter()
            files[part].write(json.dumps(exported_row(row), ensure_ascii=False) + "\n")
            counts[part][row["leaf"], row["source"]] += 1
    finally:
        for file in files.values():
            file.close()
    return counts


def _rows(dataset: Dataset, stated: dict[str, list[str]]) -> Iterator[dict[str, Any]]:
    """The rows with their licences as the card has them; an edit of these alone mixes no data set anew."""
    with pq.ParquetFile(dataset.path) as table:
        for batch in table.iter_batches(10_000):
            yield from licensed(pa.Table.from_batches([batch]), stated).to_pylist()


def _file(phase: Phase, part: str) -> str:
    return f"{phase}_{part}_msgs.jsonl"


def _write_questions(home: Home, catalog: Catalog, heldout: dict[str, Any], folder: Path, seed: int) -> dict[str, int]:
    """Write the questions of each knowledge leaf that has some; returns their number by leaf."""
    written = {}
    for entry in catalog.in_use:
        leaf = entry["leaf"]
        if entry["kind"] != "knowledge" or leaf not in heldout["leaves"]:
            continue
        held = heldout["leaves"][leaf]
        used = read_json(home.leaf_source(entry["source"]))["seeds"]
        questions = choice_questions(leaf, held, [each["answer"] for each in (*held, *used)], seed)
        if questions:
            folder.mkdir(exist_ok=True)
            name = _task_name(leaf)
            _write_lines(folder / f"{name}.jsonl", questions)
            (folder / f"{name}.yaml").write_text(_task(leaf, name), encoding="utf-8")
            written[leaf] = len(questions)
    if written:
        shutil.copyfile(_LOADER, folder / "questions.py")
    return written


def _task_name(leaf: str) -> str:
    """Unlike for leaves that differ in signs only, such as `a_b/c` and `a/b_c`."""
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
    # The choices are scored by their own text, not by letters, which small models cannot choose among.
    return f"custom_dataset: !function questions.load\n{yaml.safe_dump(task, sort_keys=False, allow_unicode=True)}"


def _write_lines(path: Path, values: Iterable[Any]) -> None:
    path.write_text("".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values), encoding="utf-8")
