"""The catalog: which leaves' rows go into the next model, and in which state they are.

It stands between the leaves and the data sets, so the graph stays small however many leaves there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lab_pipeline.core.errors import NotMaterialized
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import CATALOG_SCHEMA, CURATED_SCHEMA
from lab_pipeline.core.storage import digest, read_json, read_rows, write_json, write_rows
from lab_pipeline.instructions.plan import LeafPlan, leaf_failure, leaf_state
from lab_pipeline.taxonomy.reviews import Review, review_of, reviews_in_force, row_text
from lab_pipeline.taxonomy.snapshot import Snapshot
from lab_pipeline.taxonomy.withdrawals import Withdrawal, withdrawals


@dataclass(frozen=True)
class Catalog:
    snapshot: str
    leaves: list[dict[str, Any]]

    @property
    def in_use(self) -> list[dict[str, Any]]:
        """Leaves that contribute rows, seeds or passages."""
        return [leaf for leaf in self.leaves if leaf["source"]]

    @property
    def contents(self) -> dict[str, str]:
        """Content hash of each leaf in use, by key."""
        return {leaf["leaf"]: leaf["content"] for leaf in self.in_use}

    @property
    def behind(self) -> list[str]:
        return [leaf["leaf"] for leaf in self.leaves if leaf["state"] in ("behind", "missing")]


def build_catalog(home: Home, snapshot: Snapshot, plans: dict[str, LeafPlan], generated: bool) -> Catalog:
    """The catalog of the snapshot's leaves. Removed leaves are not in it.

    Args:
        generated: whether the settings want any rows of a teacher; if not, none that are there are in use either.
    """
    withdrawn = withdrawals(home)
    reviews = reviews_in_force(home, snapshot.reviews)
    entries = [
        _entry(home, row, generated, plans.get(row["leaf"]), withdrawn.get(row["leaf"]), reviews.get(row["leaf"], []))
        for row in snapshot.rows
    ]
    return Catalog(snapshot.id, entries)


def store_catalog(home: Home, catalog: Catalog) -> None:
    """Make a catalog the current one."""
    write_rows(_path(home, catalog), catalog.leaves, CATALOG_SCHEMA)
    write_json(home.datasets / "catalog.json", {"snapshot": catalog.snapshot, "file": _path(home, catalog).name})


def current_catalog(home: Home) -> Catalog:
    """The latest catalog.

    Raises:
        NotMaterialized: none was built yet.
    """
    pointer = home.datasets / "catalog.json"
    if not pointer.exists():
        raise NotMaterialized("no instruction catalog yet; materialize instruction_catalog first")
    current = read_json(pointer)
    return Catalog(current["snapshot"], read_rows(home.datasets / current["file"]))


def curated_rows(home: Home, entry: dict[str, Any]) -> list[dict[str, Any]]:
    """The kept rows that a catalog entry stands for."""
    return curated_table(home, entry).to_pylist()


def curated_table(home: Home, entry: dict[str, Any], columns: list[str] | None = None) -> pa.Table:
    """`curated_rows`, all columns or some, as a table."""
    if not entry["curated"]:
        return CURATED_SCHEMA.empty_table().select(columns or CURATED_SCHEMA.names)
    banned = entry.get("banned")  # catalogs of earlier releases lack it
    path = home.leaf(entry["leaf"]) / f"curated-{entry['curated']}.parquet"
    if banned:
        return pq.read_table(path, columns=columns, filters=[("id", "not in", banned)])
    return pq.ParquetFile(path).read(columns)  # in less than half the time, and there may be thousands


def _path(home: Home, catalog: Catalog) -> Path:
    return home.datasets / f"catalog-{digest([catalog.snapshot, catalog.leaves])}.parquet"


def _entry(
    home: Home,
    row: dict[str, Any],
    generated: bool,
    plan: LeafPlan | None,
    withdrawal: Withdrawal | None,
    reviews: list[Review],
) -> dict[str, Any]:
    leaf = row["leaf"]
    state = leaf_state(home, leaf) if generated and not withdrawal else None
    failure = leaf_failure(home, plan) if plan else None
    note = None
    if withdrawal:
        standing, note = "withdrawn", str(withdrawal)
    elif not row["usable"]:
        standing = "quarantined"
        problems = [f"line {problem['line']}: {problem['message']}" for problem in row["problems"]]
        note = "; ".join(problems[:3]) + ("; last good rows in use" if state else "")
    elif not generated:
        standing = "not generated"
    elif state and plan and state.curated == plan.curated:
        standing = "current"
    else:
        standing = "behind" if state else "missing"
        note = f"last refresh failed: {failure['error']}" if failure else "not refreshed yet"
    entry: dict[str, Any] = {
        "leaf": leaf,
        "kind": state.kind if state else row["kind"],
        "state": standing,
        "rows": 0,
        "generated": 0,
        "curated": state.curated if state else None,
        "content": None,
        "source": state.source if state else None,
        "banned": [],
        "note": note,
    }
    if state:
        rows = curated_rows(home, entry)
        reviewed = {kept["id"]: review_of(reviews, kept["id"], row_text(kept)) for kept in rows}
        entry["banned"] = [name for name, review in reviewed.items() if review and review.decision == "ban"]
        rows = [kept for kept in rows if kept["id"] not in entry["banned"]]
        texts = [[kept["id"], kept["context"], kept["question"], kept["answer"]] for kept in rows]
        entry |= {"rows": len(rows), "generated": state.funnel["generated"], "content": digest([state.source, texts])}
    elif standing == "not generated":
        entry |= {"source": row["fingerprint"], "content": digest([row["fingerprint"], []])}
    return entry
