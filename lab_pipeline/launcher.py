"""Where a home is, and the environment in which Dagster runs on it: the same for the command line and the UI.

`DAGSTER_HOME` and every path are absolute, for a relative one would be looked up from the working directory, and history
would be lost from another one.
"""

from __future__ import annotations

import os
from pathlib import Path

from lab_pipeline.errors import LabError
from lab_pipeline.settings import initial_settings, load_settings
from lab_pipeline.storage import Home, HomeError, digest, write_text

PROJECT = Path(__file__).parents[1]
SAMPLE_TAXONOMY = PROJECT / "data" / "taxonomy"


def deployment() -> str:
    """`LAB_DEPLOYMENT`: 'local' (the default), all on this machine, or 'k8s', each step a pod.

    Raises:
        LabError: it is neither.
    """
    found = os.environ.get("LAB_DEPLOYMENT") or "local"
    if found not in ("local", "k8s"):
        raise LabError(f"LAB_DEPLOYMENT: expected 'local' or 'k8s', found {found!r}; unset it to run on this machine")
    return found


def default_home() -> Path:
    """`LAB_HOME`, else `data/lab` of the project."""
    return Path(os.environ.get("LAB_HOME") or PROJECT / "data" / "lab").resolve()


def home_of(taxonomy: Path) -> Path:
    """The home that a taxonomy gets by itself: the default one for the sample, one of its own for any other."""
    taxonomy = taxonomy.resolve()
    if "LAB_HOME" in os.environ or taxonomy == SAMPLE_TAXONOMY:
        return default_home()
    return PROJECT / "data" / "homes" / f"{taxonomy.name}-{digest(str(taxonomy))[:8]}"


def prepare(root: Path, taxonomy: Path | None) -> Home:
    """Open a home, make its settings file if it has none, and set the process's environment for Dagster on it.

    Raises:
        HomeError: the home belongs to another taxonomy, or does not exist and no taxonomy is given.
        SettingsError: the settings file is wrong.
    """
    if taxonomy is None and not (root / "settings.yaml").exists():
        raise HomeError(f"{root}: no home yet; run `lab-pipeline retune --taxonomy FOLDER` to start one")
    home = Home.open(root)
    if not home.settings_file.exists():
        assert taxonomy
        home.settings_file.write_text(initial_settings(taxonomy.resolve()), encoding="utf-8")
    settings = load_settings(home.settings_file)
    if taxonomy and taxonomy.resolve() != Path(settings.taxonomy.path):
        raise HomeError(
            f"{home.root}: belongs to the taxonomy {settings.taxonomy.path}, not {taxonomy.resolve()}; "
            "give the other one its own home with --home"
        )
    home.claim(settings.taxonomy.path)
    home.dagster.mkdir(parents=True, exist_ok=True)
    write_text(home.dagster / "dagster.yaml", (PROJECT / "dagster.yaml").read_text(encoding="utf-8"))
    os.environ.update(
        LAB_HOME=str(home.root),
        DAGSTER_HOME=str(home.dagster),
        DAGSTER_DISABLE_TELEMETRY="1",
        GX_ANALYTICS_ENABLED="false",
        TOKENIZERS_PARALLELISM="false",
    )
    return home
