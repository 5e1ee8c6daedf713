"""Jobs: a snapshot, a refresh of leaves, a retune of the model, a rollback to an earlier one.

Leaves and the unpartitioned tail are separate jobs, for a job over both would run the tail once for every leaf.
"""

from __future__ import annotations

from typing import Any

import dagster as dg

from lab_pipeline.defs.promotion.rollback import rollback

snapshot_taxonomy = dg.define_asset_job(
    "snapshot_taxonomy",
    dg.AssetSelection.groups("taxonomy"),
    description="Read the taxonomy: which leaves there are, and what is wrong with which.",
)
refresh_leaves = dg.define_asset_job(
    "refresh_leaves",
    dg.AssetSelection.groups("instructions"),
    description="Generate, judge and curate the instructions of a range of leaves.",
)
retune = dg.define_asset_job(
    "retune",
    dg.AssetSelection.groups("datasets", "checkpoints", "promotion"),
    description="From the curated leaves to an evaluated candidate, promoted if it is better.",
)

JOBS: list[Any] = [snapshot_taxonomy, refresh_leaves, retune, rollback]
