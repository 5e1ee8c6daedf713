"""Define the jobs: snapshot, refresh of leaves, retune, rollback.

The partitioned leaves and the unpartitioned assets after them are separate jobs: one job over both would retune for every leaf.
"""

from typing import Any

import dagster as dg

from lab_pipeline.defs.code_location import SETTINGS, named
from lab_pipeline.defs.private_dagster import RETRY_ON_ASSET_OR_OP_FAILURE_TAG
from lab_pipeline.defs.promotion.rollback import rollback

RETUNE_TAG = "lab/retune"
"""Tag that all retunes of a lab share, so that on a cluster `tag_concurrency_limits` starts one of them at a time."""

_BAD_DATA_FAILS_ONCE = {RETRY_ON_ASSET_OR_OP_FAILURE_TAG: "false"}
"""Run tag: runs are retried after crashes only, whatever an instance that is shared with others has as its default."""

snapshot_taxonomy = dg.define_asset_job(
    named("snapshot_taxonomy"),
    dg.AssetSelection.groups("taxonomy"),
    tags=_BAD_DATA_FAILS_ONCE,
    description="Read the taxonomy: list its leaves and their problems.",
)
refresh_leaves = dg.define_asset_job(
    named("refresh_leaves"),
    dg.AssetSelection.groups("instructions"),
    tags=_BAD_DATA_FAILS_ONCE,
    description="Generate, judge and curate the instructions of a range of leaves. The log says first how many calls, tokens, "
    "money and minutes this is expected to take, as `lab-pipeline estimate` does before; this_run.teacher_money limits it.",
)
retune = dg.define_asset_job(
    named("retune"),
    dg.AssetSelection.groups("datasets", "checkpoints", "promotion"),
    tags={RETUNE_TAG: SETTINGS.lab or "lab", **_BAD_DATA_FAILS_ONCE},
    description="Mix the data sets from the curated leaves, train and evaluate a candidate, and promote it if it is better.",
)

JOBS: list[Any] = [snapshot_taxonomy, refresh_leaves, retune, rollback]
