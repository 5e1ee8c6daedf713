"""Store, load and compare the data sets of both training phases."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow.parquet as pq

from lab_pipeline.config.recipe import Recipe
from lab_pipeline.config.settings import Settings
from lab_pipeline.core.errors import NotMaterialized
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import TRAINING_SCHEMA
from lab_pipeline.core.storage import digest, read_json, read_rows
from lab_pipeline.datasets.catalog import Catalog
from lab_pipeline.datasets.custom import custom_contents

Phase = Literal["knowledge", "skills"]


@dataclass(frozen=True)
class Dataset:
    """One phase's training data: a Parquet file named by the hash of its rows, with what it is made of."""

    phase: Phase
    made_from: str
    """See `origin`."""
    mixed_by: str
    """See `mixing`."""
    digest: str
    path: Path
    rows: int
    """Rows to train on; so are those of `by_source` and `by_leaf`."""
    by_source: dict[str, int]
    by_leaf: dict[str, int]
    validation: dict[str, int]
    """Rows to validate on, by leaf; the general ones as `general`."""
    excluded: dict[str, int]

    def read(self) -> list[dict[str, Any]]:
        return read_rows(self.path)

    def head(self, count: int = 5) -> list[dict[str, Any]]:
        """The first rows."""
        return next(pq.ParquetFile(self.path).iter_batches(count), TRAINING_SCHEMA.empty_table()).to_pylist()


def load_dataset(home: Home, phase: Phase) -> Dataset:
    """The phase's current data set.

    Raises:
        NotMaterialized: it was not materialized yet, or by a release that did not say how it was mixed.
    """
    pointer = home.datasets / f"{phase}.json"
    described = read_json(pointer) if pointer.exists() else {}
    if "mixed_by" not in described:
        raise NotMaterialized(f"no {phase} data yet; materialize {phase}_dataset first")
    return Dataset(**{**described, "path": home.datasets / described["path"]})


def exclusions(home: Home) -> list[dict[str, Any]]:
    """Rows that the current data sets left out, under `EXCLUDED_SCHEMA` and with the data set's name as `stage`."""
    found = []
    for phase in get_args(Phase):
        if (home.datasets / f"{phase}.json").exists():
            path = load_dataset(home, phase).path
            found += [{**row, "stage": f"{phase} data set"} for row in read_rows(path.with_stem(f"{path.stem}-excluded"))]
    return found


def origin(catalog: Catalog, heldout: dict[str, Any], settings: Settings) -> str:
    """What both data sets are mixed from."""
    own = [custom_contents(datasets) for datasets in (settings.mixing.knowledge, settings.mixing.skills)]
    return digest([catalog.contents, heldout["digest"], own])


def mixing(phase: Phase, replay: list[dict[str, str]], recipe: Recipe, settings: Settings) -> str:
    """What a phase's data set is mixed by: general questions, shares and seed."""
    return digest([replay, recipe.mixing(phase), settings.seed])


def require_agreement(datasets: Iterable[Dataset], catalog: Catalog, heldout: dict[str, Any], settings: Settings) -> None:
    """Data sets that are used beside a catalog and a test must have been mixed from them.

    Raises:
        NotMaterialized: one was not, as after the catalog alone was built anew; the message names it.
    """
    now = origin(catalog, heldout, settings)
    _require(
        [dataset for dataset in datasets if dataset.made_from != now],
        "mixed from another catalog, other held-out questions or other own data than the current ones",
    )


def require_mixing(datasets: Iterable[Dataset], replay: list[dict[str, str]], recipe: Recipe, settings: Settings) -> None:
    """Data sets that a recipe trains on must have been mixed by it.

    Raises:
        NotMaterialized: one was not, as after an edit of the recipe's shares; the message names it.
    """
    _require(
        [dataset for dataset in datasets if dataset.mixed_by != mixing(dataset.phase, replay, recipe, settings)],
        "mixed by another recipe's shares, another seed or other general questions than this run's",
    )


def _require(stale: list[Dataset], how: str) -> None:
    if stale:
        names = " and ".join(f"{dataset.phase}_dataset" for dataset in stale)
        raise NotMaterialized(f"{names}: {how}; materialize {names} again, or run `lab-pipeline retune`")
