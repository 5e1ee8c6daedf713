"""Export a home's data sets in the formats of other tools, to one folder that works wherever it is moved.

- `PHASE_SPLIT_msgs.jsonl`: rows of `id`, `messages`, `metadata` (JSON text) and `unmask`, as instructlab-training and
  training_hub read them, and `PHASE_recipe.yaml`, which names the training split as instructlab-sdg's recipes do: paths start
  at the recipe's folder. A phase without rows has neither.
- `multiple_choice/`, if phase *knowledge* is exported: for each knowledge leaf its held-out questions, with a task file for
  lm-eval (see `multiple_choice`).
- `README.md`: a data-set card for the Hugging Face hub.
"""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from lab_pipeline.config.settings import Settings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import TrainingRow
from lab_pipeline.core.storage import written_whole
from lab_pipeline.datasets.catalog import current_catalog
from lab_pipeline.datasets.data_card import Counts, data_card
from lab_pipeline.datasets.dataset import Dataset, Phase, load_dataset
from lab_pipeline.datasets.heldout_questions import load_heldout
from lab_pipeline.datasets.multiple_choice import write_tasks
from lab_pipeline.datasets.rows import licences_by_leaf, with_licences
from lab_pipeline.datasets.staleness import require_current_sources
from lab_pipeline.taxonomy.snapshot import load_snapshot


def export_datasets(home: Home, phases: list[Phase], folder: Path, settings: Settings) -> list[str]:
    """Write the current data sets of these phases to a new folder; return the paths of its files within the folder, sorted.

    Raises:
        LabError: the folder exists already.
        NotMaterialized: the catalog, the held-out questions or a data set were not materialized yet, or a data set was mixed
            from others than the current catalog, held-out questions or custom data sets.
    """
    if folder.exists():
        raise LabError(f"{folder}: exists already; name a new folder for the export")
    datasets = {phase: load_dataset(home, phase) for phase in phases}
    catalog, heldout = current_catalog(home), load_heldout(home)
    require_current_sources(datasets.values(), catalog, heldout, settings.mixing)
    snapshot = load_snapshot(home, catalog.snapshot)
    licences = licences_by_leaf(snapshot)
    with written_whole(folder) as scratch:
        scratch.mkdir()
        splits = {phase: _write_rows(dataset, licences, scratch) for phase, dataset in datasets.items()}
        for phase in phases:
            if "train" not in splits[phase]:
                continue  # no rows, as phase 1 of a taxonomy without knowledge
            recipe = {"datasets": [{"path": _file(phase, "train"), "sampling_size": 1.0}], "metadata": {"sys_prompt": ""}}
            (scratch / f"{phase}_recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
        questions = {}
        if "knowledge" in phases:
            questions = write_tasks(home, catalog, heldout, scratch / "multiple_choice", settings.seed)
        card = data_card(splits, {phase: datasets[phase].digest for phase in phases}, questions, snapshot)
        (scratch / "README.md").write_text(card, encoding="utf-8")
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def exported_row(row: TrainingRow) -> dict[str, object]:
    """Convert a training row to InstructLab's columns: `id`, `messages`, `metadata` and `unmask`. Leaf, source and source row
    go to the metadata; the split is left out, since each split has a file of its own."""
    metadata = json.loads(row["metadata"]) | {"leaf": row["leaf"], "source": row["source"], "source_row": row["source_row"]}
    text = json.dumps(metadata, sort_keys=True, ensure_ascii=False)
    return {"id": row["id"], "messages": row["messages"], "metadata": text, "unmask": row["unmask"]}


def _write_rows(dataset: Dataset, licences: dict[str, list[str]], folder: Path) -> dict[str, Counts]:
    """Write a JSONL file for each split that has rows, in the data set's order; return each split's row counts."""
    counts: dict[str, Counts] = {}
    files: dict[str, TextIO] = {}
    with ExitStack() as stack:
        for row in _rows(dataset, licences):
            split = row["part"]
            if split not in files:
                files[split] = stack.enter_context((folder / _file(dataset.phase, split)).open("w", encoding="utf-8"))
                counts[split] = Counter()
            files[split].write(json.dumps(exported_row(row), ensure_ascii=False) + "\n")
            counts[split][row["leaf"], row["source"]] += 1
    return counts


def _rows(dataset: Dataset, licences: dict[str, list[str]]) -> Iterator[TrainingRow]:
    """Yield the rows, each with its leaf's licences as they are now, since an edited licence makes no data set stale."""
    with pq.ParquetFile(dataset.path) as table:
        for batch in table.iter_batches(10_000):
            yield from with_licences(pa.Table.from_batches([batch]), licences).to_pylist()


def _file(phase: Phase, split: str) -> str:
    return f"{phase}_{split}_msgs.jsonl"
