"""Build, store and load the catalog: which leaves' rows go into the next model, and in which state they are.

It stands between the leaves and the data sets, so the graph stays small however many leaves there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from lab_pipeline.core.errors import NotMaterialized
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import CATALOG_SCHEMA, CURATED_SCHEMA, CatalogEntry, CuratedRow, FrozenLeaf, SnapshotRow
from lab_pipeline.core.storage import digest, read_json, read_rows, write_json, write_rows
from lab_pipeline.instructions.plan import LeafPlan, LeafState, leaf_failure, leaf_state
from lab_pipeline.taxonomy.reviews import Review, review_of, reviews_in_force, row_text
from lab_pipeline.taxonomy.snapshot import Snapshot
from lab_pipeline.taxonomy.withdrawals import withdrawals


@dataclass(frozen=True)
class Catalog:
    """What each leaf of a snapshot contributes to the next model, in the snapshot's order; `snapshot` is the snapshot's id."""

    snapshot: str
    leaves: list[CatalogEntry]

    @property
    def in_use(self) -> list[CatalogEntry]:
        """Return the entries of the leaves that contribute rows, seeds or passages to the data sets."""
        return [entry for entry in self.leaves if entry["source"]]

    @property
    def contents(self) -> dict[str, str]:
        """Return the hash of what each leaf in use contributes, by the leaf's key."""
        return {entry["leaf"]: entry["content"] for entry in self.in_use if entry["content"]}

    @property
    def stale(self) -> list[str]:
        """Return the keys of the leaves to refresh: those with rows of an earlier plan, and those with no rows yet."""
        return [entry["leaf"] for entry in self.leaves if entry["state"] in ("behind", "missing")]


def build_catalog(home: Home, snapshot: Snapshot, plans: dict[str, LeafPlan], generated: bool) -> Catalog:
    """Build the catalog of a snapshot's leaves; leaves that the taxonomy no longer has are not in it.

    A withdrawn leaf contributes nothing. A stale or quarantined leaf contributes the rows of its last successful refresh, if
    any, without those that people banned since.

    Args:
        plans: plans of the usable leaves, by key.
        generated: False if the settings want no generated rows. Usable leaves then contribute only seeds and passages.

    Raises:
        LabError: the home's `reviews.yaml` is wrong.
    """
    withdrawn = withdrawals(home)
    reviews = reviews_in_force(home, snapshot.reviews)
    entries = []
    for row in snapshot.rows:
        leaf = row["leaf"]
        withdrawal = withdrawn.get(leaf)
        refreshed = leaf_state(home, leaf) if generated and not withdrawal else None
        state, note = _state_and_note(home, row, generated, plans.get(leaf), refreshed)
        if withdrawal:
            state, note = "withdrawn", str(withdrawal)
        entry: CatalogEntry = {
            "leaf": leaf,
            "kind": row["kind"],
            "state": state,
            "rows": 0,
            "generated": 0,
            "curated": None,
            "content": None,
            "source": None,
            "banned": [],
            "note": note,
        }
        if refreshed:
            _add_rows(home, entry, refreshed, reviews.get(leaf, []))
        elif state == "not generated":
            entry |= {"source": row["fingerprint"], "content": digest([row["fingerprint"], []])}
        entries.append(entry)
    return Catalog(snapshot.id, entries)


def store_catalog(home: Home, catalog: Catalog) -> None:
    """Store a catalog as a Parquet file named by its hash, and make it the current one; earlier ones stay stored."""
    path = home.datasets / f"catalog-{digest([catalog.snapshot, catalog.leaves])}.parquet"
    write_rows(path, catalog.leaves, CATALOG_SCHEMA)
    write_json(home.datasets / "catalog.json", {"snapshot": catalog.snapshot, "file": path.name})


def current_catalog(home: Home) -> Catalog:
    """Load the current catalog.

    Raises:
        NotMaterialized: none was built yet.
    """
    pointer = home.datasets / "catalog.json"
    if not pointer.exists():
        raise NotMaterialized("no instruction catalog yet; materialize instruction_catalog first")
    current = read_json(pointer)
    return Catalog(current["snapshot"], read_rows(home.datasets / current["file"]))


def curated_rows(home: Home, entry: CatalogEntry) -> list[CuratedRow]:
    """Read the curated rows of a catalog entry, without banned ones; an empty list if the leaf has no curated table."""
    return curated_table(home, entry).to_pylist()


def curated_table(home: Home, entry: CatalogEntry, columns: list[str] | None = None) -> pa.Table:
    """Read the curated rows of a catalog entry as a table, without those that people banned; with all columns, or `columns`.

    Return an empty table if the leaf has no curated table.
    """
    if not entry["curated"]:
        return CURATED_SCHEMA.empty_table().select(columns or CURATED_SCHEMA.names)
    banned = entry.get("banned")  # catalogs of earlier releases lack it
    path = home.leaf(entry["leaf"]) / f"curated-{entry['curated']}.parquet"
    if banned:
        return pq.read_table(path, columns=columns, filters=[("id", "not in", banned)])
    return pq.ParquetFile(path).read(columns)  # twice as fast as read_table; there may be thousands of leaves


def frozen_leaf(home: Home, entry: CatalogEntry) -> FrozenLeaf:
    """Read the frozen source of a leaf in use: the seeds, passages and descriptions from which its rows were generated."""
    assert entry["source"], "a leaf in use has a source"
    return read_json(home.leaf_source(entry["source"]))


def _state_and_note(
    home: Home, row: SnapshotRow, generated: bool, plan: LeafPlan | None, refreshed: LeafState | None
) -> tuple[str, str | None]:
    """Return the `state` of a leaf that is not withdrawn, and why it is quarantined, behind or missing (else None)."""
    if not row["usable"]:
        problems = "; ".join(f"line {problem['line']}: {problem['message']}" for problem in row["problems"][:3])
        return "quarantined", problems + ("; last good rows in use" if refreshed else "")
    if not generated:
        return "not generated", None
    if refreshed and plan and refreshed.curated == plan.curated:
        return "current", None
    failure = leaf_failure(home, plan) if plan else None
    note = f"last refresh failed: {failure.error}" if failure else "not refreshed yet"
    return ("behind" if refreshed else "missing"), note


def _add_rows(home: Home, entry: CatalogEntry, refreshed: LeafState, reviews: Sequence[Review]) -> None:
    """Fill into `entry` what a refreshed leaf contributes: its kind, fingerprints of its curated table and source, the ids of
    rows that people banned, the numbers of all other curated rows and of generated rows, and the `content` hash."""
    entry |= {"kind": refreshed.kind, "curated": refreshed.curated, "source": refreshed.source}
    texts = []
    for row in curated_rows(home, entry):
        review = review_of(reviews, row["id"], row_text(row))
        if review and review.decision == "ban":
            entry["banned"].append(row["id"])
        else:
            texts.append([row["id"], row["context"], row["question"], row["answer"]])
    entry |= {"rows": len(texts), "generated": refreshed.funnel["generated"], "content": digest([refreshed.source, texts])}
