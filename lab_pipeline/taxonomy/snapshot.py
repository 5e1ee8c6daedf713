"""Take snapshots of a taxonomy: one row for each leaf, and the content of each usable leaf in a file of its own.

Later steps read these frozen files, not the taxonomy, so a commit during a retune cannot mix two states of the taxonomy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from lab_pipeline.config.settings import Settings
from lab_pipeline.core.errors import LabError, NotMaterialized
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import SNAPSHOT_SCHEMA, FrozenLeaf, SnapshotRow
from lab_pipeline.core.storage import clear_scratch, digest, read_json, read_rows, write_json, write_rows
from lab_pipeline.taxonomy.acceptance import collect_exam
from lab_pipeline.taxonomy.documents.blocks import DocumentError
from lab_pipeline.taxonomy.documents.passages import PassageBudgets, passages
from lab_pipeline.taxonomy.documents.reading import Document, left_out_problems, read_document
from lab_pipeline.taxonomy.documents.repository import WORKTREE, fetch_files, local_path
from lab_pipeline.taxonomy.documents.sensitive import refused_hosts, sensitive_problems
from lab_pipeline.taxonomy.find import QNA, find_all
from lab_pipeline.taxonomy.holdout import MINIMUM_SEEDS, Ledger, split_seeds, taught_questions
from lab_pipeline.taxonomy.leaf import ATTRIBUTION, Leaf, LeafReading, Seed, read_leaf
from lab_pipeline.taxonomy.problem import Problem
from lab_pipeline.taxonomy.reviews import FILE, read_reviews
from lab_pipeline.taxonomy.source import Taxonomy, open_taxonomy, scan, whole_state

READING_VERSION = 1
"""Raise this whenever leaves or documents are read in another way, so that leaves that did not change are read again too.
`lab_pipeline_tests/taxonomy/test_reading_version.py` fails if you forget."""

_ESTIMATED = PassageBudgets()


@dataclass(frozen=True)
class Snapshot:
    """A taxonomy as it was when the snapshot was taken: one row for each leaf, and facts about the whole."""

    id: str
    """Hash of the rows, so snapshots with equal rows have equal ids."""
    taxonomy_commit: str
    """`Taxonomy.commit`: full commit id, with `+changes` appended for a modified work tree; '' outside git."""
    taken_at: str
    """ISO 8601 with milliseconds, UTC."""
    rows: list[SnapshotRow]
    state: str = ""
    """The `taxonomy_state`, whose scans were made before the files were read; '' if an older release took the snapshot."""
    branch: str = ""
    """Branch or other ref of the repository, '' outside git."""
    notes: list[str] = field(default_factory=list)
    """Notes for people: branch switched or history rewritten since the previous snapshot, or `reviews.yaml` wrong."""
    document_folders: list[str] = field(default_factory=list)
    """Absolute paths of plain folders outside the taxonomy from which leaves take documents, sorted."""
    reviews: list[dict[str, str | None]] = field(default_factory=list)
    """Entries of the taxonomy's `reviews.yaml` as JSON; if the file is wrong, those of the previous snapshot."""
    exam: list[dict[str, Any]] = field(default_factory=list)
    """Acceptance questions as JSON, each with its `leaf` (see `lab_pipeline.taxonomy.acceptance`)."""
    refused: list[str] = field(default_factory=list)
    """The `refused_hosts` when it was taken: for these hosts the documents of usable leaves were checked and found clean."""
    inputs: dict[str, str] = field(default_factory=dict)
    """Hash of all that the row of a leaf depends on, by key. Left out are leaves that are read anew each time: those that are
    not usable, whose documents may be available again, and those with documents in a plain folder."""

    @property
    def usable(self) -> dict[str, str]:
        """Map the key of each usable leaf to its fingerprint."""
        return {row["leaf"]: row["fingerprint"] for row in self.rows if row["usable"] and row["fingerprint"]}

    @property
    def problems(self) -> dict[str, list[str]]:
        """Map the key of each leaf to its problems, each as `file:line: message`; the list is empty if there are none."""
        return {row["leaf"]: [str(Problem(**problem)) for problem in row["problems"]] for row in self.rows}


def take_snapshot(
    home: Home,
    settings: Settings,
    on_progress: Callable[[int, int, str], None] = lambda done, total, leaf: None,
    budgets: PassageBudgets = _ESTIMATED,
) -> Snapshot:
    """Read the whole taxonomy, store rows, facts and frozen leaves in `home`, and make the result the current snapshot.

    New seeds get their roles in the held-out ledger, documents are fetched, and scratch folders of killed processes removed.
    Earlier snapshots stay stored. A leaf that cannot be used is no error: its row says why.

    Args:
        on_progress: Called before each leaf with the number of leaves done, the number of all leaves, and the leaf's key.
        budgets: How long the passages of each leaf may be.

    Raises:
        LabError: The taxonomy cannot be read, or has no leaf.
    """
    clear_scratch(home.root)
    home.heldout_ledger.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(home.heldout_ledger.with_suffix(".lock")):  # otherwise, two snapshots at once could give a question two roles
        taxonomy = open_taxonomy(home, settings)
        found = find_all(taxonomy.folder)
        if not found:
            raise LabError(
                f"{settings.taxonomy.path}: no qna.yaml below knowledge/, compositional_skills/ or foundational_skills/; "
                "check taxonomy.path (for a bare repository, set taxonomy.ref)"
            )
        ledger = Ledger(home.heldout_ledger, lambda: taught_questions(home))
        before = current_snapshot(home) if home.current_snapshot.exists() else None
        earlier = {row["leaf"]: row for row in before.rows} if before else {}
        reviews, notes = _reviews(taxonomy, before)
        exam, exam_notes = collect_exam(taxonomy.folder, ledger, before.exam if before else [])
        rows = []
        scans: dict[str, str] = {}
        origin = [taxonomy.exported, taxonomy.origin is not None]
        policy = [settings.documents.model_dump(), refused_hosts(settings), *origin]
        same = digest([READING_VERSION, settings.seed, budgets.id, policy])
        inputs: dict[str, str] = {}
        for done, (key, misnamed) in enumerate(found.items()):
            on_progress(done, len(found), key)
            read = digest([same, *_contents(taxonomy.folder / key), [str(problem) for problem in misnamed]])
            if before and before.inputs.get(key) == read and _is_frozen(home, earlier[key]):
                row = earlier[key]
            else:
                reading = read_leaf(taxonomy.folder, key, misnamed)
                row = _row(home, settings, taxonomy, reading, ledger, scans, budgets)
                if not row["usable"] and key in earlier:
                    _keep_last_usable(row, earlier[key])
            rows.append(row)
            if row["usable"] and not (row["document_commit"] or "").startswith(WORKTREE):
                inputs[key] = read
        snapshot = Snapshot(
            id=digest(rows),
            taxonomy_commit=taxonomy.commit,
            taken_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            rows=rows,
            state=whole_state(taxonomy.state, scans, refused_hosts(settings), budgets.id),
            branch=taxonomy.branch,
            notes=taxonomy.notes + notes + exam_notes,
            document_folders=sorted(scans),
            reviews=reviews,
            exam=exam,
            refused=refused_hosts(settings),
            inputs=inputs,
        )
        ledger.flush()
        write_rows(home.snapshot(snapshot.id), rows, SNAPSHOT_SCHEMA)
        facts = {name: value for name, value in vars(snapshot).items() if name != "rows"}
        write_json(home.snapshot_facts(snapshot.id), facts)
        write_json(home.current_snapshot, facts)
    return snapshot


def _contents(leaf: Path) -> list[str]:
    """Return the hashes of a leaf's `qna.yaml` and `attribution.txt`; '' for one that is missing, unreadable or a link."""
    found = []
    for path in (leaf / QNA, leaf / ATTRIBUTION):
        try:
            found.append("" if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest())
        except OSError:
            found.append("")
    return found


def _is_frozen(home: Home, row: SnapshotRow) -> bool:
    return bool(row["fingerprint"]) and home.leaf_source(str(row["fingerprint"])).exists()


def current_snapshot(home: Home) -> Snapshot:
    """Load the latest snapshot.

    Raises:
        NotMaterialized: There is none yet.
    """
    if not home.current_snapshot.exists():
        raise NotMaterialized("no taxonomy snapshot yet; materialize taxonomy_snapshot first")
    current = read_json(home.current_snapshot)
    return Snapshot(rows=read_rows(home.snapshot(current["id"])), **current)


def check_recipients(snapshot: Snapshot, settings: Settings) -> None:
    """Refuse a snapshot that did not check its documents for all `refused_hosts` of the present settings.

    Raises:
        LabError: Teacher, judge or `documents.sensitive` changed since, and a host came in that it did not check for.
    """
    if new := set(refused_hosts(settings)) - set(snapshot.refused):
        raise LabError(
            "the documents were not yet looked through for secrets and personal data that must not go to "
            f"{', '.join(sorted(new))} (documents.sensitive is 'refuse'); materialize taxonomy_snapshot first"
        )


def load_snapshot(home: Home, snapshot_id: str) -> Snapshot:
    """Load the snapshot with this id; if several snapshots had the same rows and so the same id, the facts are the last one's.

    Of a snapshot that an older release took, only the rows may be known; commit and time are then ''.

    Raises:
        NotMaterialized: The home has no snapshot with this id.
    """
    if not home.snapshot(snapshot_id).exists():
        raise NotMaterialized(f"no taxonomy snapshot {snapshot_id}; materialize taxonomy_snapshot and instruction_catalog")
    if not home.snapshot_facts(snapshot_id).exists():  # older releases kept the facts of the latest snapshot only
        current = current_snapshot(home)
        return current if current.id == snapshot_id else Snapshot(snapshot_id, "", "", read_rows(home.snapshot(snapshot_id)))
    return Snapshot(rows=read_rows(home.snapshot(snapshot_id)), **read_json(home.snapshot_facts(snapshot_id)))


def _reviews(taxonomy: Taxonomy, before: Snapshot | None) -> tuple[list[dict[str, str | None]], list[str]]:
    """Return the reviews in the taxonomy's `reviews.yaml`, and no note. If the file is wrong, return those of the snapshot
    `before`, so that bans stay in force, and a note that says so."""
    file = taxonomy.folder / FILE
    try:
        found = [] if file.is_symlink() else read_reviews(file)
    except LabError as error:
        return before.reviews if before else [], [f"{error}; until it is fixed, the reviews of the previous snapshot hold"]
    return [review.model_dump(mode="json") for review in found], []


def _row(
    home: Home,
    settings: Settings,
    taxonomy: Taxonomy,
    reading: LeafReading,
    ledger: Ledger,
    scans: dict[str, str],
    budgets: PassageBudgets,
) -> SnapshotRow:
    """Return a leaf's snapshot row. If the leaf is usable, also record its seeds' roles and store its `FrozenLeaf` in the home.

    A leaf whose documents cannot be read becomes unusable here; the problem is added to `reading`, and the `scan` of each
    document folder outside the taxonomy to `scans`.
    """
    leaf = reading.leaf
    frozen: FrozenLeaf | None = None
    held_out: list[Seed] = []
    if leaf and reading.usable:
        documents = _documents(home, settings, taxonomy, leaf, reading, scans)
        if reading.usable:
            used, held_out = split_seeds(leaf, ledger, settings.seed)
            if warning := _split_warning(used, held_out):
                reading.report(leaf.seeds[0].line, warning, "warning")
            frozen = _frozen(leaf, used, documents, budgets)
    fingerprint = None
    if frozen:
        fingerprint = digest(_without_commits(frozen))
        if not home.leaf_source(fingerprint).exists():
            write_json(home.leaf_source(fingerprint), frozen)
    grounded = leaf is not None and leaf.kind == "grounded_skill"
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
        "problems": [
            {"file": each.file, "line": each.line, "severity": each.severity, "message": each.message}
            for each in reading.problems
        ],
        "heldout_questions": [
            {"question": seed.question, "answer": seed.answer, "context": seed.context if grounded else None}
            for seed in held_out
        ],
    }


def _keep_last_usable(row: SnapshotRow, earlier: SnapshotRow) -> None:
    """Overwrite held-out questions and origin in a quarantined leaf's `row` by those of its `earlier` row: the last good rows
    stay in use."""
    row["held_out"], row["heldout_questions"] = earlier["held_out"], earlier["heldout_questions"]
    row["documents"], row["document_commit"] = earlier["documents"], earlier["document_commit"]
    row["contributor"], row["attribution"] = earlier["contributor"], earlier["attribution"]


def _documents(
    home: Home, settings: Settings, taxonomy: Taxonomy, leaf: Leaf, reading: LeafReading, scans: dict[str, str]
) -> list[Document]:
    """Read a leaf's documents, none for a skill; add what is wrong with them and what their readers left out to `reading`.

    A plain folder outside the taxonomy is scanned before it is read, and the scan added to `scans`.
    """
    if leaf.document is None:
        return []
    try:
        local = local_path(leaf.document.repo, taxonomy.folder, taxonomy.origin)
        inside = local is not None and local.is_relative_to(taxonomy.folder)
        stated, remote = settings.documents.allow_local, taxonomy.exported and taxonomy.origin is None
        allowed = (not remote if stated is None else stated) or (taxonomy.exported and inside)
        if allowed and local and not inside and leaf.document.commit == WORKTREE and str(local) not in scans:
            scans[str(local)] = scan(home, local)
        policy = settings.documents.model_copy(update={"allow_local": allowed})
        files, unread = fetch_files(leaf.document, taxonomy.folder, home.documents, policy, taxonomy.origin)
    except LabError as error:
        reading.report(leaf.document.line, str(error))
        return []
    except OSError as error:
        reading.report(leaf.document.line, f"{error.filename} cannot be read: {error.strerror}")
        return []
    if unread:
        others = f" and {len(unread) - 3} more" if len(unread) > 3 else ""
        names = f"{', '.join(unread[:3])}{others}"
        reading.report(leaf.document.line, f"no reader takes {names}, which match the patterns; left out", "warning")
    documents: list[Document] = []
    for file in files:
        try:
            document = read_document(file.path, file.commit, file.raw)
        except DocumentError as error:
            reading.problems.append(Problem(file.path, error.line, "error", error.message, rule="document-unreadable"))
            continue
        reading.problems += [*left_out_problems(document), *sensitive_problems(document, refused_hosts(settings))]
        documents.append(document)
    if not any(block.kind != "heading" for document in documents for block in document.blocks):
        reading.report(leaf.document.line, "the documents hold no paragraph of text")
    return documents


def _split_warning(used: list[Seed], held_out: list[Seed]) -> str | None:
    """Say what a leaf lacks if no seed is held out for evaluation, or none is used for generation; else None."""
    if not held_out:
        return (
            f"no seed can be held out, so what is learned of this leaf is not measurable; write at least {MINIMUM_SEEDS} "
            "questions (in knowledge, on one context) that ask different things, and that no data set has taught yet"
        )
    if not used:
        return (
            "no seed is left to generate from: each is held out for the test, or repeats one that is; "
            "write seeds that ask something else"
        )
    return None


def _frozen(leaf: Leaf, used: list[Seed], documents: list[Document], budgets: PassageBudgets) -> FrozenLeaf:
    return {
        "leaf": leaf.key,
        "kind": leaf.kind,
        "task": leaf.task_description,
        "domain": leaf.domain,
        "outline": leaf.document_outline,
        "seeds": [
            {"question": seed.question, "answer": seed.answer, "context": seed.context, "asked": seed.asked} for seed in used
        ],
        "passages": [passage for document in documents for passage in passages(document, budgets.of(leaf.key))],
        "documents": [
            {"path": document.path, "commit": document.commit, "reader": document.reader, "text": document.text}
            for document in documents
        ],
    }


def _without_commits(frozen: FrozenLeaf) -> dict[str, object]:
    """Return what the fingerprint of a leaf covers: a commit that changes none of its documents does not change it."""
    parts = {name: [{**each, "commit": None} for each in frozen[name]] for name in ("passages", "documents")}
    return {**frozen, **parts}
