"""Locate the artefacts of a home, the folder with all data of one taxonomy."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.storage import digest, read_json, write_json

SCHEMA_VERSION = 1
"""Version of the home's layout and tables. Raise it together with a migration in `Home.open`."""

_LONGEST_FILE_NAME = 200


def file_name(leaf_key: str) -> str:
    """Derive from a leaf's key the name of its folder: without slashes, unique, and of at most 200 characters."""
    name = quote(leaf_key, safe=" ").replace("~", "%7E")
    return name if len(name) <= _LONGEST_FILE_NAME else f"{name[:160]}~{digest(leaf_key)}"


class Home:
    """The folder that holds the whole history of one taxonomy: settings, Dagster instance and all artefacts."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.settings_file = root / "settings.yaml"
        self.dagster = root / "dagster"
        """`DAGSTER_HOME`: runs, events, schedules and logs."""
        self.judges = root / "judges"
        """For each judge of a flow, its scores for rows that are known to be good or bad; and the journal of those calls."""
        self.dialects = root / "dialects"
        """What endpoints were found to take of a request, a JSON file for each model."""
        self.documents = root / "documents"
        """Mirrors of document repositories."""
        self.taxonomy_mirror = root / "taxonomy.git"
        self.taxonomies = root / "taxonomies"
        """Taxonomies exported from the mirror, each in a folder named by the id of its git tree."""
        self.current_snapshot = root / "snapshots" / "current.json"
        self.heldout_ledger = root / "heldout" / "ledger.jsonl"
        self.datasets = root / "datasets"
        self.models = root / "models"
        """Base models, each converted once, in folders named by hash, and a JSON file for each check that found a model fit."""
        self.checkpoints = root / "checkpoints"
        self.evaluations = root / "evaluations"
        self.champions = root / "champions"
        self.withdrawals = root / "withdrawals.jsonl"
        self.spending = root / "spending.jsonl"
        """One line for each refresh that called teacher or judge: what it was expected to take, and what it took."""

    @classmethod
    def open(cls, root: Path) -> Home:
        """Open the home at `root`; its folder and its marker `home.json` are created if they are missing.

        Raises:
            LabError: The folder cannot be written, or a release with another `SCHEMA_VERSION` wrote it.
        """
        home = cls(root.resolve())
        marker = home.root / "home.json"
        try:
            if not marker.exists():
                write_json(marker, {"schema_version": SCHEMA_VERSION})
        except OSError as error:
            raise LabError(f"{home.root}: cannot be written ({error.strerror}); choose another home") from error
        found = read_json(marker)["schema_version"]
        if found != SCHEMA_VERSION:
            raise LabError(
                f"{home.root}: written with schema version {found}, this release reads {SCHEMA_VERSION}; "
                "use the release that wrote it, or start a new home"
            )
        return home

    def claim(self, taxonomy: str) -> None:
        """Bind the home to one taxonomy for good, by writing into `home.json` how the settings write its address.

        A home that has a taxonomy keeps it; `load_settings` refuses settings that name another one.
        """
        marker = self.root / "home.json"
        state = read_json(marker)
        if "taxonomy" not in state:
            write_json(marker, {**state, "taxonomy": taxonomy})

    def snapshot(self, snapshot_id: str) -> Path:
        return self.root / "snapshots" / f"{snapshot_id}.parquet"

    def snapshot_facts(self, snapshot_id: str) -> Path:
        """Return the path of the JSON file with all of a `Snapshot` but its rows; `current_snapshot` copies the latest."""
        return self.root / "snapshots" / f"{snapshot_id}.json"

    def dialect(self, identity: str) -> Path:
        """Return the path of the JSON file with the `Dialect` of a model behind an endpoint, stored or not."""
        return self.dialects / f"{digest(identity)}.json"

    def slots(self, url: str) -> Path:
        """Return the folder by whose locks all processes bound the requests that the server at this URL has at once."""
        return self.root / "slots" / digest(url.rstrip("/"))

    def leaf_source(self, fingerprint: str) -> Path:
        """Return the path of the JSON file of the `FrozenLeaf` with this fingerprint, whether or not it is stored yet."""
        return self.root / "sources" / f"{fingerprint}.json"

    def leaf(self, key: str) -> Path:
        """Return the path of the folder for the journal, instruction tables and state of one leaf, whether or not it exists."""
        return self.root / "leaves" / file_name(key)

    def provenance(self, leaf: str, curated: str) -> Path:
        """Return the path of the JSON file that says from which flow, prompts, frozen source and models a table was made.

        Args:
            leaf: Key of the leaf.
            curated: Fingerprint of the curated table.
        """
        return self.leaf(leaf) / f"made-{curated}.json"

    def mixed_datasets(self) -> list[Path]:
        """List the Parquet files of all training data sets ever mixed here, by name; files of excluded rows are left out."""
        mixed = [*self.datasets.glob("knowledge-*.parquet"), *self.datasets.glob("skills-*.parquet")]
        return sorted(path for path in mixed if not path.stem.endswith("-excluded"))


PROJECT = Path(__file__).parents[2]


def default_home() -> Path:
    """Return the absolute path in `LAB_HOME`, or `data/lab` in the project's folder if that variable is not set."""
    return Path(os.environ.get("LAB_HOME") or PROJECT / "data" / "lab").resolve()
