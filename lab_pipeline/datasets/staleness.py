"""Tell whether a stored data set is still the one that the current inputs and recipe would give.

A data set records two fingerprints: `made_from` is that of its sources, `mixed_by` that of the way they were mixed.
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
    """Hash the sources of both phases' data sets: what the leaves in use contribute, held-out questions and custom data sets.

    Raises:
        CustomDataError: a custom data set cannot be read.
    """
    return digest([catalog.contents, heldout["digest"], [custom_contents(custom.knowledge), custom_contents(custom.skills)]])


def mixing_fingerprint(phase: Phase, replay: Sequence[GeneralQuestion], recipe: Recipe, seed: int) -> str:
    """Hash what, beside its sources, decides on a phase's rows: general questions, the recipe's strategy and shares, seed."""
    return digest([replay, recipe.mixing(phase), seed])


def require_current_sources(datasets: Iterable[Dataset], catalog: Catalog, heldout: HeldoutSet, custom: MixingSettings) -> None:
    """Refuse data sets that were not mixed from these sources.

    Raises:
        NotMaterialized: a data set was mixed from others, for example before the catalog was built anew; the message names it.
        CustomDataError: a custom data set cannot be read.
    """
    fingerprint = source_fingerprint(catalog, heldout, custom)
    _refuse(
        [dataset for dataset in datasets if dataset.made_from != fingerprint],
        "mixed from another catalog, other held-out questions or other custom data sets than the current ones",
    )


def require_current_mixing(datasets: Iterable[Dataset], replay: Sequence[GeneralQuestion], recipe: Recipe, seed: int) -> None:
    """Refuse data sets that were not mixed by this recipe, with this seed and these general questions.

    Raises:
        NotMaterialized: a data set was mixed otherwise, as before an edit of the recipe's shares; the message names it.
    """
    _refuse(
        [dataset for dataset in datasets if dataset.mixed_by != mixing_fingerprint(dataset.phase, replay, recipe, seed)],
        "mixed by another recipe's shares, another seed or other general questions than this run's",
    )


def _refuse(stale: list[Dataset], why: str) -> None:
    if stale:
        names = " and ".join(f"{dataset.phase}_dataset" for dataset in stale)
        raise NotMaterialized(f"{names}: {why}; materialize {names} again, or run `lab-pipeline retune`")
