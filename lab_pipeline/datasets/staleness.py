"""Tell whether a stored data set is still the one that the current inputs and recipe would give.

A data set carries two fingerprints: `made_from` of its sources, and `mixed_by` of the way they were mixed.
"""

from collections.abc import Iterable, Sequence

from lab_pipeline.config.recipe import Recipe
from lab_pipeline.config.settings import MixingSettings
from lab_pipeline.core.errors import NotMaterialized
from lab_pipeline.core.rows import GeneralQuestion, HeldoutSet
from lab_pipeline.core.storage import digest
from lab_pipeline.datasets.catalog import Catalog
from lab_pipeline.datasets.custom import custom_contents
from lab_pipeline.datasets.dataset import Dataset, Phase


def source_fingerprint(catalog: Catalog, heldout: HeldoutSet, custom: MixingSettings) -> str:
    """Hash the sources of both data sets: leaves, held-out questions and custom data sets."""
    return digest([catalog.contents, heldout["digest"], [custom_contents(custom.knowledge), custom_contents(custom.skills)]])


def mixing_fingerprint(phase: Phase, replay: Sequence[GeneralQuestion], recipe: Recipe, seed: int) -> str:
    """Hash all else that decides which rows a phase's data set has: general questions, the recipe's shares, the seed."""
    return digest([replay, recipe.mixing(phase), seed])


def require_current_sources(datasets: Iterable[Dataset], catalog: Catalog, heldout: HeldoutSet, custom: MixingSettings) -> None:
    """Raise if a data set was not mixed from these sources.

    Raises:
        NotMaterialized: as after the catalog alone was built anew; the message names the data sets.
    """
    fingerprint = source_fingerprint(catalog, heldout, custom)
    _refuse(
        [dataset for dataset in datasets if dataset.made_from != fingerprint],
        "mixed from another catalog, other held-out questions or other custom data sets than the current ones",
    )


def require_current_mixing(datasets: Iterable[Dataset], replay: Sequence[GeneralQuestion], recipe: Recipe, seed: int) -> None:
    """Raise if a data set was not mixed by this recipe and seed.

    Raises:
        NotMaterialized: as after an edit of the recipe's shares; the message names the data sets.
    """
    _refuse(
        [dataset for dataset in datasets if dataset.mixed_by != mixing_fingerprint(dataset.phase, replay, recipe, seed)],
        "mixed by another recipe's shares, another seed or other general questions than this run's",
    )


def _refuse(stale: list[Dataset], why: str) -> None:
    if stale:
        names = " and ".join(f"{dataset.phase}_dataset" for dataset in stale)
        raise NotMaterialized(f"{names}: {why}; materialize {names} again, or run `lab-pipeline retune`")
