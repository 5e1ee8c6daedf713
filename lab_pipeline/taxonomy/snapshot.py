"""The snapshot: one row for each leaf, and each usable leaf's content frozen under its fingerprint.

Everything after the snapshot reads the frozen content, so a commit in the middle of a retune cannot mix two states.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock

from lab_pipeline.datasets.heldout import Ledger, split_seeds
from lab_pipeline.documents.passages import passages
from lab_pipeline.documents.repository import DocumentProblem, fetch_documents
from lab_pipeline.errors import LabError, NotMaterialized
from lab_pipeline.settings import Settings
from lab_pipeline.storage import Home, digest, read_json, read_rows, write_json, write_rows
from lab_pipeline.taxonomy.leaf import QNA, Leaf, LeafReading, Problem, Seed, find_leaves, read_leaf

SNAPSHOT_SCHEMA = pa.schema(
    [
        ("leaf", pa.string()),
        ("kind", pa.string()),
        ("version", pa.int32()),
        ("schema_verdict", pa.string()),
        ("usable", pa.bool_()),
        ("fingerprint", pa.string()),
        ("seeds", pa.int32()),
        ("held_out", pa.int32()),
        ("documents", pa.list_(pa.string())),
        ("document_commit", pa.string()),
        ("contributor", pa.string()),
        ("attribution", pa.string()),
        (
            "problems",
            pa.list_(
                pa.struct([("file", pa.string()), ("line", pa.int32()), ("severity", pa.string()), ("message", pa.string())])
            ),
        ),
        (
            "heldout_questions",
            pa.list_(pa.struct([("question", pa.string()), ("answer", pa.string()), ("context", pa.string())])),
        ),
    ]
)
"""`usable` false = quarantined; the held-out questions are then those of the leaf's last good state. `fingerprint`
changes with whatever a prompt may show: seeds in use, description, passages."""


_KEPT = ("held_out", "heldout_questions", "documents", "document_commit", "contributor", "attribution")
"""Columns of a leaf's last usable state that its quarantined row carries on."""


@dataclass(frozen=True)
class Snapshot:
    """A taxonomy as it stood at one moment."""

    id: str
    """Hash of the rows: two equal taxonomies have equal ids."""
    taxonomy_commit: str
    """Commit of the repository around the taxonomy, with `+changes` for an unclean work tree; '' outside of git."""
    taken_at: str
    rows: list[dict[str, Any]]

    @property
    def usable(self) -> dict[str, str]:
        """Fingerprint of each usable leaf, by key."""
        return {row["leaf"]: row["fingerprint"] for row in self.rows if row["usable"]}

    @property
    def problems(self) -> dict[str, list[str]]:
        """What is wrong, as `file:line: message`, by leaf."""
        return {
            row["leaf"]: [f"{problem['file']}:{problem['line']}: {problem['message']}" for problem in row["problems"]]
            for row in self.rows
        }


def take_snapshot(
    home: Home, settings: Settings, on_progress: Callable[[int, int, str], None] = lambda done, total, leaf: None
) -> Snapshot:
    """Read the whole taxonomy, freeze its usable leaves in `home`, and make the result the current snapshot.

    Raises:
        LabError: the taxonomy's folder does not exist or holds no leaf at all.
    """
    taxonomy = Path(settings.taxonomy.path)
    keys = find_leaves(taxonomy)
    if not keys:
        raise LabError(
            f"{taxonomy}: no qna.yaml below knowledge/, compositional_skills/ or foundational_skills/; check taxonomy.path"
        )
    home.heldout_ledger.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(home.heldout_ledger.with_suffix(".lock")):  # two snapshots at once must not give one question two roles
        ledger = Ledger(home.heldout_ledger)
        earlier = {row["leaf"]: row for row in current_snapshot(home).rows} if home.current_snapshot.exists() else {}
        rows = []
        for done, key in enumerate(keys):
            on_progress(done, len(keys), key)
            reading = read_leaf(taxonomy, key)
            row = _row(home, settings, taxonomy, reading, ledger)
            if not row["usable"] and key in earlier:  # its last good rows stay in use, so they must stay measurable
                row |= {name: earlier[key][name] for name in _KEPT}
            rows.append(row)
    snapshot = Snapshot(digest(rows), _commit_of(taxonomy), datetime.now(UTC).isoformat(timespec="seconds"), rows)
    write_rows(home.snapshot(snapshot.id), rows, SNAPSHOT_SCHEMA)
    write_json(
        home.current_snapshot,
        {"id": snapshot.id, "taxonomy_commit": snapshot.taxonomy_commit, "taken_at": snapshot.taken_at},
    )
    return snapshot


def current_snapshot(home: Home) -> Snapshot:
    """The latest snapshot.

    Raises:
        NotMaterialized: none was taken yet.
    """
    if not home.current_snapshot.exists():
        raise NotMaterialized("no taxonomy snapshot yet; materialize taxonomy_snapshot first")
    current = read_json(home.current_snapshot)
    return Snapshot(rows=read_rows(home.snapshot(current["id"])), **current)


def _row(home: Home, settings: Settings, taxonomy: Path, reading: LeafReading, ledger: Ledger) -> dict[str, Any]:
    leaf = reading.leaf
    frozen: dict[str, Any] | None = None
    held_out: list[Seed] = []
    if leaf and reading.usable:
        documents = _documents(home, settings, taxonomy, leaf, reading)
        if reading.usable:
            used, held_out = split_seeds(leaf, ledger, settings.seed)
            frozen = _frozen(leaf, used, documents)
    fingerprint = None
    if frozen:
        fingerprint = digest({**frozen, "passages": [{**each, "commit": None} for each in frozen["passages"]]})
        if not home.leaf_source(fingerprint).exists():
            write_json(home.leaf_source(fingerprint), frozen)
    return {
        "leaf": reading.key,
        "kind": leaf.kind if leaf else None,
        "version": reading.version,
        "schema_verdict": reading.schema_verdict,
        "usable": frozen is not None,
        "fingerprint": fingerprint,
        "seeds": len(leaf.seeds) if leaf else None,
        "held_out": len(held_out),
        "documents": sorted({passage["document"] for passage in frozen["passages"]}) if frozen else [],
        "document_commit": frozen["passages"][0]["commit"] if frozen and frozen["passages"] else None,
        "contributor": leaf.created_by if leaf else None,
        "attribution": leaf.attribution if leaf else None,
        "problems": [asdict(problem) for problem in reading.problems],
        "heldout_questions": [
            {
                "question": seed.question,
                "answer": seed.answer,
                "context": seed.context if leaf and leaf.kind == "grounded_skill" else None,
            }
            for seed in held_out
        ],
    }


def _documents(home: Home, settings: Settings, taxonomy: Path, leaf: Leaf, reading: LeafReading) -> list[dict[str, Any]]:
    """Passages of the leaf's documents; what cannot be had is added to the reading's problems."""
    if leaf.document is None:
        return []
    try:
        documents = fetch_documents(leaf.document, taxonomy, home.documents, settings.documents)
    except (DocumentProblem, OSError) as error:
        reading.problems.append(Problem(f"{leaf.key}/{QNA}", leaf.document.line, "error", str(error)))
        return []
    found = [passage.as_dict() for document in documents for passage in passages(document)]
    if not found:
        reading.problems.append(
            Problem(f"{leaf.key}/{QNA}", leaf.document.line, "error", "the documents hold no paragraph of text")
        )
    return found


def _frozen(leaf: Leaf, used: list[Seed], documents: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "leaf": leaf.key,
        "kind": leaf.kind,
        "task": leaf.task_description,
        "domain": leaf.domain,
        "outline": leaf.document_outline,
        "seeds": [
            {"question": seed.question, "answer": seed.answer, "context": seed.context, "asked": seed.asked} for seed in used
        ],
        "passages": documents,
    }


def _commit_of(taxonomy: Path) -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(taxonomy), *arguments], capture_output=True, text=True, timeout=60)
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "HEAD")
    return f"{commit}+changes" if commit and git("status", "--porcelain", "--", ".") else commit
