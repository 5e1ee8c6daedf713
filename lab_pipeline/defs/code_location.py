"""Read the settings that this code location depends on once, as it is loaded, and name what it defines after its lab.

One Dagster instance may hold many labs, each a code location with its own home. The setting `lab` keeps them apart: all that an
instance knows by name (assets, jobs, sensors, pools, partitions) has it in front. Without it, the names stand alone.
"""

import dagster as dg

from lab_pipeline.config.settings import Settings, SettingsError, TaxonomySettings, load_settings
from lab_pipeline.core.home import default_home


def _settings() -> Settings:
    try:
        return load_settings(default_home() / "settings.yaml")
    except SettingsError:  # none yet, or wrong ones: the definitions load all the same, and runs say what is wrong
        return Settings(taxonomy=TaxonomySettings(path="."))


SETTINGS = _settings()
PREFIX = [SETTINGS.lab] if SETTINGS.lab else []
"""Prefix of all asset keys."""


def named(name: str) -> str:
    """Return the name of a job, sensor, schedule, pool or partitions definition of this lab."""
    return "_".join([*PREFIX, name])


def asset_key(name: str) -> dg.AssetKey:
    return dg.AssetKey([*PREFIX, name])
