"""Define the jobs: snapshot, refresh of leaves, retune, rollback.

The partitioned leaves and the unpartitioned assets after them are separate jobs: one job over both would retune for every leaf.
"""

from typing import Any

import dagster as dg

from lab_pipeline.defs.promotion.rollback import rollback

snapshot_taxonomy = dg.define_asset_job(
    "snapshot_taxonomy",
    dg.AssetSelection.groups("taxonomy"),
    description="Read the taxonomy: list its leaves and their problems.",
)
refresh_leaves = dg.define_asset_job(
    "refresh_leaves",
    dg.AssetSelection.groups("instructions"),
    description="Generate, judge and curate the instructions of a range of leaves. The log says first how many calls, tokens, "
    "money and minutes this is expected to take, as `lab-pipeline estimate` does before; this_run.teacher_money limits it.",
)
retune = dg.define_asset_job(
    "retune",
    dg.AssetSelection.groups("datasets", "checkpoints", "promotion"),
    description="Mix the data sets from the curated leaves, train and evaluate a candidate, and promote it if it is better.",
)

JOBS: list[Any] = [snapshot_taxonomy, refresh_leaves, retune, rollback]
