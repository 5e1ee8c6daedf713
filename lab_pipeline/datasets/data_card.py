"""Render the data-set card of an export: `README.md` for the Hugging Face hub."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import jinja2

from lab_pipeline.core.formats import cell
from lab_pipeline.datasets.dataset import Phase
from lab_pipeline.taxonomy.attribution import is_non_commercial, licences, works
from lab_pipeline.taxonomy.snapshot import Snapshot

_TAGS = ["lab", "synthetic-data", "instructlab-taxonomy"]

_HUB_LICENCES = {
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "MIT",
    "MPL-2.0",
    *(f"CC-BY{more}-{version}.0" for more in ("", "-SA", "-NC", "-ND", "-NC-SA", "-NC-ND") for version in (2, 3, 4)),
}
"""SPDX ids of the licences that the Hugging Face hub knows too; its own names for them are the same in lower case."""

Counts = Counter[tuple[str | None, str]]
"""Number of rows by (leaf, source); the leaf is None for rows that belong to no leaf."""


def data_card(
    splits: Mapping[Phase, dict[str, Counts]], digests: Mapping[Phase, str], questions: dict[str, int], snapshot: Snapshot
) -> str:
    """Return the card's text: the hub's front matter, the rows of each split by source, and for each leaf the number of its
    rows and the works and licences that the snapshot states.

    Args:
        splits: for each phase, number of rows by split, leaf and source.
        digests: hash of each phase's data set.
        questions: number of multiple-choice questions by leaf.
    """
    from huggingface_hub import DatasetCardData

    by_leaf: dict[str, Counter[str]] = {}
    for phase, found in splits.items():
        for counts in found.values():
            for (leaf, _), rows in counts.items():
                if leaf:
                    by_leaf.setdefault(leaf, Counter())[phase] += rows
    attributions = {row["leaf"]: row["attribution"] for row in snapshot.rows if row["leaf"] in by_leaf}
    stated = {licence for attribution in attributions.values() for licence in licences(attribution)}
    unstated = sorted(leaf for leaf in by_leaf if not licences(attributions.get(leaf)))
    hub = {licence.lower() if licence in _HUB_LICENCES else "other" for licence in stated} | ({"other"} if unstated else set())
    data = DatasetCardData(
        license=sorted(hub) or None,
        license_name="see below" if hub == {"other"} else None,
        task_categories=["text-generation", "question-answering"],
        tags=_TAGS,
        configs=[
            {"config_name": phase, "data_files": [{"split": split, "path": f"{phase}_{split}_msgs.jsonl"} for split in found]}
            for phase, found in splits.items()
            if found
        ],
    )
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["cell"] = cell
    template = environment.from_string((Path(__file__).parent / "data_card.md.jinja").read_text(encoding="utf-8"))
    card = template.render(
        front_matter=data.to_yaml(),
        phases={
            phase: {split: _by_source(counts) for split, counts in sorted(found.items())} for phase, found in splits.items()
        },
        digests=digests,
        leaves={leaf: dict(counts) for leaf, counts in sorted(by_leaf.items())},
        works={leaf: works(attributions.get(leaf)) for leaf in sorted(by_leaf)},
        non_commercial=sorted(filter(is_non_commercial, stated)),
        unstated=unstated,
        questions=questions,
        taxonomy_commit=snapshot.taxonomy_commit,
    )
    return card + "\n"


def _by_source(counts: Counts) -> dict[str, int]:
    found: Counter[str] = Counter()
    for (_, source), rows in counts.items():
        found[source] += rows
    return dict(sorted(found.items()))
