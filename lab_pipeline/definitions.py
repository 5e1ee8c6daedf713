"""Compose what Dagster loads: assets, checks, jobs, sensors, the schedule, resources and the executor."""

from __future__ import annotations

import dagster as dg

from lab_pipeline.config.deployment import deployment
from lab_pipeline.core.home import default_home
from lab_pipeline.defs.automation import nightly_retune, stale_leaves, taxonomy_changes, waiting_retunes
from lab_pipeline.defs.checkpoints import assets as checkpoints
from lab_pipeline.defs.datasets import assets as datasets
from lab_pipeline.defs.datasets import checks as dataset_checks
from lab_pipeline.defs.instructions import assets as instructions
from lab_pipeline.defs.jobs import JOBS
from lab_pipeline.defs.kubernetes import executor, trainer
from lab_pipeline.defs.notifications import crashed_runs
from lab_pipeline.defs.promotion import assets as promotion
from lab_pipeline.defs.promotion import checks as promotion_checks
from lab_pipeline.defs.resources import RetuneLock, launchable_lab
from lab_pipeline.defs.taxonomy import assets as taxonomy
from lab_pipeline.defs.taxonomy import checks as taxonomy_checks

defs = dg.Definitions(
    assets=dg.load_assets_from_modules([taxonomy, instructions, datasets, checkpoints, promotion]),
    asset_checks=dg.load_asset_checks_from_modules([taxonomy_checks, dataset_checks, promotion_checks]),
    jobs=JOBS,
    sensors=[taxonomy_changes, stale_leaves, waiting_retunes, crashed_runs],
    schedules=[nightly_retune],
    resources={
        "lab": launchable_lab(default_home()),
        "retune_lock": RetuneLock(root=str(default_home()), held_by_run=deployment() == "k8s"),
        "trainer": trainer(),
    },
    executor=executor(),
)
