"""Describe a snapshot for people: the state of each leaf, what is wrong, and how its documents were read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import FrozenLeaf
from lab_pipeline.core.storage import read_json
from lab_pipeline.taxonomy.snapshot import Snapshot


def leaf_states(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Return key, kind, state, seeds and number of warnings of each leaf, the quarantined ones first."""
    rows = sorted(snapshot.rows, key=lambda row: (row["usable"], row["leaf"]))
    return [
        {
            "leaf": row["leaf"],
            "kind": (row["kind"] or "unknown").replace("_", " "),
            "state": "usable" if row["usable"] else "quarantined",
            "seeds": row["seeds"] or 0,
            "held out": row["held_out"],
            "warnings": sum(problem["severity"] == "warning" for problem in row["problems"]),
        }
        for row in rows
    ]


def problems_by_severity(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Return severity, leaf, file, line and message of all problems, errors first, then by leaf."""
    found = [
        {
            "severity": problem["severity"],
            "leaf": row["leaf"],
            "file": problem["file"].removeprefix(f"{row['leaf']}/"),
            "line": problem["line"],
            "problem": problem["message"],
        }
        for row in snapshot.rows
        for problem in row["problems"]
    ]
    return sorted(found, key=lambda problem: (problem["severity"] != "error", problem["leaf"]))


def read_documents(home: Home, snapshot: Snapshot) -> Iterator[dict[str, Any]]:
    """Yield path, reader, passages and words of each document of the usable leaves, by leaf."""
    for row in snapshot.rows:
        if not row["documents"] or not row["fingerprint"]:
            continue
        leaf: FrozenLeaf = read_json(home.leaf_source(row["fingerprint"]))
        passages = Counter(passage["document"] for passage in leaf["passages"])
        for document in leaf.get("documents", ()):
            yield {
                "leaf": row["leaf"],
                "document": document["path"],
                "reader": document["reader"],
                "passages": passages[document["path"]],
                "words": len(document["text"].split()),
            }
