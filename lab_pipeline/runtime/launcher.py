"""Find a home and set the environment in which Dagster runs on it, for the command line and the UI alike.

`DAGSTER_HOME` and all paths are absolute: relative ones would lose the history when the working directory is another.
"""

import os
import re
from pathlib import Path

from lab_pipeline.config.settings import another_taxonomy, initial_settings, load_settings, read_settings, taxonomy_address
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.git import is_remote
from lab_pipeline.core.home import PROJECT, Home, default_home
from lab_pipeline.core.storage import digest, write_text

SAMPLE_TAXONOMY = PROJECT / "data" / "taxonomy"


def home_of(taxonomy: str | Path) -> Path:
    """Return the folder of a taxonomy's default home.

    This is `LAB_HOME` if set; else `data/lab` for the sample taxonomy, and `data/homes/NAME-HASH` for any other path or URL.
    """
    address = taxonomy_address(str(taxonomy), Path.cwd())
    if "LAB_HOME" in os.environ or address == str(SAMPLE_TAXONOMY):
        return default_home()
    name = re.split("[/:]", address.rstrip("/"))[-1].removesuffix(".git") if is_remote(address) else Path(address).name
    return PROJECT / "data" / "homes" / f"{name}-{digest(address)[:8]}"


def prepare(root: Path, taxonomy: str | Path | None, ref: str | None = None) -> Home:
    """Open a home, or create it for a taxonomy, and set this process's environment so that Dagster runs on it.

    A new home gets a settings file and is bound to its taxonomy for good. The project's `dagster.yaml` is copied to
    `DAGSTER_HOME` if the copy there is missing or differs.

    Args:
        taxonomy: path or URL; None takes the one in the home's settings file.
        ref: git ref of the taxonomy for a new home to read; None takes the one in the settings file, if that names one.

    Raises:
        LabError: the home belongs to another taxonomy or reads another ref, or does not exist and no taxonomy is given.
        SettingsError: the settings file is wrong.
    """
    if taxonomy is None and not (root / "settings.yaml").exists():
        raise LabError(f"{root}: no home yet; run `lab-pipeline retune --home {root} --taxonomy PATH_OR_URL` to start one")
    address = taxonomy_address(str(taxonomy), Path.cwd()) if taxonomy else None
    home = Home.open(root)
    if not home.settings_file.exists():
        assert address
        write_text(home.settings_file, initial_settings(address, ref))
    settings = load_settings(home.settings_file)
    if address and address != settings.taxonomy.path:
        raise LabError(another_taxonomy(home.root, settings.taxonomy.path, address))
    if ref and ref != settings.taxonomy.ref:
        raise LabError(
            f"{home.root}: reads {settings.taxonomy.ref or 'no ref'} of its taxonomy, not {ref}; "
            f"to read another one, edit taxonomy.ref in {home.settings_file}"
        )
    home.claim(read_settings(home.settings_file).taxonomy.path)
    configuration, current = home.dagster / "dagster.yaml", (PROJECT / "dagster.yaml").read_text(encoding="utf-8")
    if not configuration.exists() or configuration.read_text(encoding="utf-8") != current:
        write_text(configuration, current)
    os.environ.update(
        LAB_HOME=str(home.root),
        DAGSTER_HOME=str(home.dagster),
        DAGSTER_DISABLE_TELEMETRY="1",
        GX_ANALYTICS_ENABLED="false",
        TOKENIZERS_PARALLELISM="false",
    )
    return home
