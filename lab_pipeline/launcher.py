"""Where a home is, and the environment in which Dagster runs on it: the same for the command line and the UI.

`DAGSTER_HOME` and every path are absolute, for a relative one would be looked up from the working directory, and history
would be lost from another one.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from lab_pipeline.errors import LabError
from lab_pipeline.git import is_remote
from lab_pipeline.settings import initial_settings, load_settings, taxonomy_address
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


def home_of(taxonomy: str | Path) -> Path:
    """The home that a taxonomy gets by itself: the default one for the sample, one of its own for any other path or URL."""
    address = taxonomy_address(str(taxonomy), Path.cwd())
    if "LAB_HOME" in os.environ or address == str(SAMPLE_TAXONOMY):
        return default_home()
    name = re.split("[/:]", address.rstrip("/"))[-1].removesuffix(".git") if is_remote(address) else Path(address).name
    return PROJECT / "data" / "homes" / f"{name}-{digest(address)[:8]}"


def prepare(root: Path, taxonomy: str | Path | None, ref: str | None = None) -> Home:
    """Open a home, make its settings file if it has none, and set the process's environment for Dagster on it.

    Raises:
        HomeError: the home belongs to another taxonomy or reads another ref, or does not exist and no taxonomy is given.
        SettingsError: the settings file is wrong.
    """
    if taxonomy is None and not (root / "settings.yaml").exists():
        raise HomeError(f"{root}: no home yet; run `lab-pipeline retune --taxonomy PATH_OR_URL` to start one")
    address = taxonomy_address(str(taxonomy), Path.cwd()) if taxonomy else None
    home = Home.open(root)
    if not home.settings_file.exists():
        assert address
        write_text(home.settings_file, initial_settings(address, ref))
    settings = load_settings(home.settings_file)
    if address and address != settings.taxonomy.path:
        raise HomeError(
            f"{home.root}: belongs to the taxonomy {settings.taxonomy.path}, not {address}; "
            "give the other one its own home with --home"
        )
    if ref and ref != settings.taxonomy.ref:
        raise HomeError(
            f"{home.root}: reads {settings.taxonomy.ref or 'no ref'} of its taxonomy, not {ref}; "
            f"to read another one, edit taxonomy.ref in {home.settings_file}"
        )
    home.claim(settings.taxonomy.path)
    ours, wanted = home.dagster / "dagster.yaml", (PROJECT / "dagster.yaml").read_text(encoding="utf-8")
    if not ours.exists() or ours.read_text(encoding="utf-8") != wanted:
        write_text(ours, wanted)
    os.environ.update(
        LAB_HOME=str(home.root),
        DAGSTER_HOME=str(home.dagster),
        DAGSTER_DISABLE_TELEMETRY="1",
        GX_ANALYTICS_ENABLED="false",
        TOKENIZERS_PARALLELISM="false",
    )
    return home
