"""Answer lineage questions: what a model was trained on, which models were trained on a leaf, where a row comes from."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pyarrow.parquet as pq

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.evaluation import Evaluation
from lab_pipeline.core.formats import did_you_mean, printable
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import CatalogEntry, CuratedRow, FrozenLeaf, Passage, RejectedRow, TrainingRow
from lab_pipeline.core.storage import read_json, read_rows
from lab_pipeline.datasets.catalog import curated_rows
from lab_pipeline.datasets.rows import document_row, seed_row
from lab_pipeline.evaluation.history import evaluations
from lab_pipeline.instructions.plan import leaf_state
from lab_pipeline.registry.champion import current_champion, history, rewrite_cards
from lab_pipeline.registry.lineage import build_lineage
from lab_pipeline.taxonomy.documents.passages import passages_of
from lab_pipeline.taxonomy.reviews import Review, asked_of, review_of, reviews_in_force, row_text, text_digest
from lab_pipeline.taxonomy.snapshot import current_snapshot
from lab_pipeline.taxonomy.withdrawals import Withdrawal, record_withdrawal, withdrawals

RowLineage = Mapping[str, object]
"""Where a row comes from. Its keys depend on the row's kind of source; for a curated row of a data set, they include the
provenance of the row's table."""

_MADE_BY = ("taxonomy_commit", "flow", "flow_version", "teacher")


def standings(home: Home) -> dict[str, str]:
    """Return 'champion' or 'earlier champion' for each model that is or was in use, by id."""
    champion = current_champion(home)
    return {move["id"]: "earlier champion" for move in history(home)} | ({champion.id: "champion"} if champion else {})


def evaluation_of(home: Home, candidate: str) -> Evaluation:
    """Return the last evaluation of a candidate.

    Raises:
        LabError: no candidate of that id was evaluated.
    """
    known = evaluations(home)
    if candidate not in known:
        raise LabError(f"{candidate}: no candidate of this id was evaluated; {did_you_mean(candidate, known)}")
    return known[candidate]


def model_lineage(home: Home, model: str) -> Mapping[str, Any]:
    """Return what a model was trained on: a champion's `lineage.json`, or the same facts from a candidate's evaluation.

    Under `withdrawn` stand the model's leaves that are withdrawn now, each with who withdrew it and why.

    Args:
        model: 'champion', or the id of a champion or candidate.

    Raises:
        LabError: there is no such model.
    """
    if model == "champion":
        champion = current_champion(home)
        if champion is None:
            raise LabError("no champion yet; run `lab-pipeline retune`")
        model = champion.id
    shipped = home.champions / model / "lineage.json"
    lineage = read_json(shipped) if shipped.exists() else build_lineage(home, evaluation_of(home, model), [])
    withdrawn = withdrawals(home)
    names = [leaf["leaf"] for leaf in lineage["leaves"] if leaf["leaf"] in withdrawn]
    return {**lineage, "withdrawn": {leaf: str(withdrawn[leaf]) for leaf in names}}


def known_leaves(home: Home) -> set[str]:
    """Return the keys of all leaves in the current snapshot, in an evaluated model, or among the withdrawn leaves."""
    in_taxonomy = {row["leaf"] for row in current_snapshot(home).rows} if home.current_snapshot.exists() else set()
    in_models = {leaf for evaluation in evaluations(home).values() for leaf in evaluation["catalog"]}
    return in_taxonomy | in_models | withdrawals(home).keys()


def with_branches(leaves: Iterable[str]) -> set[str]:
    """Return the keys of leaves and of all branches above them."""
    return {leaf.rsplit("/", above)[0] for leaf in leaves for above in range(leaf.count("/") + 1)}


def leaf_lineage(home: Home, leaf: str) -> dict[str, Any]:
    """Return a leaf's key, by whom and why it is `withdrawn` (None if it is not), and the evaluated `models` trained on it.

    The models come in the order of `evaluations`. Each has its standing (champion, earlier champion or candidate), the outcome
    and time of its evaluation, the number of rows from the leaf, and the commits of taxonomy and document.

    Raises:
        LabError: no such leaf is known; the message suggests similar names.
    """
    check_known(home, leaf)
    roles = standings(home)
    models = [
        {
            "model": name,
            "standing": roles.get(name, "candidate"),
            "outcome": evaluation["verdict"]["outcome"],
            "rows": held["rows"],
            "document_commit": held["document_commit"],
            "taxonomy_commit": evaluation["taxonomy_commit"],
            "evaluated_at": evaluation["evaluated_at"],
        }
        for name, evaluation in evaluations(home).items()
        for held in evaluation["leaves"]
        if held["leaf"] == leaf
    ]
    withdrawal = withdrawals(home).get(leaf)
    return {"leaf": leaf, "withdrawn": str(withdrawal) if withdrawal else None, "models": models}


def withdraw(home: Home, leaf: str, author: str, reason: str, undo: bool = False) -> Withdrawal:
    """Exclude a leaf from all later data sets and tests, or with `undo` include it again; return what was recorded.

    The model cards of all champions are written again, because they name the withdrawn leaves.

    Raises:
        LabError: no such leaf is known, there is nothing to change, or author or reason is blank.
    """
    check_known(home, leaf)
    withdrawal = record_withdrawal(home, leaf, author, reason, withdrawn=not undo)
    rewrite_cards(home)
    return withdrawal


def row_lineage(home: Home, row_id: str) -> RowLineage:
    """Trace a row to its leaf, commits and flow, and if it was made from a document, to the span and its text.

    Also tell which data sets and models hold the row, and its review. A row that repeats another one, as replay or RAFT do, has
    that row's lineage too; a general or custom row has no leaf, only its question's id or its file.

    Args:
        row_id: id of a row of a data set, or of a row of a leaf that is in no data set; the beginning of an id is enough where
            it is unique.

    Raises:
        LabError: the id fits no row, or several; or the tables that the row came from are no longer in the home.
    """
    reviews = reviews_in_force(home, current_snapshot(home).reviews)
    row, data_sets = _training_row(home, row_id)
    if row is None:
        return _leaf_row(home, row_id, reviews)
    found: RowLineage = {
        "row": row["id"],
        "source": row["source"],
        "datasets": data_sets,
        "models": _trained_on(home, data_sets),
        "messages": row["messages"],
        "part": row.get("part", "train"),  # earlier releases validated on none
    }
    if repeats := {"replay": "replays", "raft": "asks_again"}.get(row["source"]):
        original = row_lineage(home, row["source_row"])
        return {**original, **found, repeats: original["row"]}
    if row["source"] == "own":
        return {**found, "leaf": None, "file": row["source_row"]}
    if row["source"] == "general" or row["leaf"] is None:
        return {**found, "leaf": None, "question": row["source_row"]}
    text = text_digest(row["messages"][0]["content"], row["messages"][-1]["content"])
    review = review_of(reviews.get(row["leaf"], []), row["source_row"], text)
    return {**found, "leaf": row["leaf"], "review": str(review) if review else None, **_origin(home, row["leaf"], row)}


def users_of(home: Home, row_id: str) -> tuple[list[str], list[str]]:
    """Return the names of all data sets ever mixed that hold a curated row, given by its full id, and of the models trained on
    these."""
    wanted = [("source_row", "=", row_id), ("source", "=", "curated")]
    data_sets = [path.stem for path in home.mixed_datasets() if pq.read_table(path, columns=["id"], filters=wanted).num_rows]
    return data_sets, _trained_on(home, data_sets)


def _trained_on(home: Home, data_sets: Sequence[str]) -> list[str]:
    return [
        name
        for name, evaluation in evaluations(home).items()
        if any(f"{phase}-{digest}" in data_sets for phase, digest in evaluation["datasets"].items())
    ]


def as_text(kind: str, answer: Mapping[str, object]) -> str:
    """Render the lineage of a model, leaf or row (`kind`) for a terminal."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(Path(__file__).with_name("lineage.txt.jinja").read_text(encoding="utf-8"))
    return printable(template.render(kind=kind, **answer).rstrip("\n"))


def _origin(home: Home, leaf: str, row: TrainingRow) -> RowLineage:
    """Find what a curated, seed or document row was made from, in the frozen leaves and tables that any catalog named.

    Raises:
        LabError: these tables are no longer in the home.
    """
    wanted = row["source_row"]
    metadata = json.loads(row["metadata"])
    for entry in _catalog_entries(home, leaf):
        fingerprint, curated = entry["source"], entry["curated"]
        if fingerprint is None:
            continue
        source: FrozenLeaf = read_json(home.leaf_source(fingerprint))
        if row["source"] == "curated" and curated:
            for made in curated_rows(home, entry):
                # Equal rows may have been made at two commits; the training row names its own.
                if made["id"] == wanted and made["taxonomy_commit"] == metadata["taxonomy_commit"]:
                    file = home.provenance(leaf, curated)
                    provenance: RowLineage = read_json(file) if file.exists() else {}
                    made_by = {name: value for name, value in made.items() if name in _MADE_BY}
                    span = _span(next(passages_of(made, source), None))
                    return {**provenance, **made_by, "support": made["support"], "advice": advice_of(made), **span}
        elif row["source"] == "seed" and any(seed_row(leaf, seed)["source_row"] == wanted for seed in source["seeds"]):
            return {"taxonomy_commit": _commit_of(home, leaf, fingerprint), "file": f"{leaf}/qna.yaml"}
        else:
            for passage in source["passages"]:
                if row["source"] == "document" and document_row(leaf, source["domain"], passage)["source_row"] == wanted:
                    return {"taxonomy_commit": _commit_of(home, leaf, fingerprint), **_span(passage)}
    raise LabError(f"row {row['id']}: the tables of {leaf} that it came from are no longer in the home")


def _span(passage: Passage | None) -> RowLineage:
    if passage is None:
        return {"document": None, "document_commit": None, "place": None, "span": None, "text": None}
    return {
        "document": passage["document"],
        "document_commit": passage["commit"],
        "place": passage.get("place") or None,
        "span": [passage["start"], passage["end"]],
        "text": passage["text"],
    }


def _leaf_row(home: Home, beginning: str, reviews: Mapping[str, Sequence[Review]]) -> RowLineage:
    """Trace a row of a leaf's last good tables that is in no data set: banned, rejected by a rule, or not mixed yet.

    Raises:
        LabError: no row's id begins so, or several do.
    """
    found = []
    states = [state for leaf in sorted(known_leaves(home)) if (state := leaf_state(home, leaf))]
    tables = [(state, table) for state in states for table in ("curated", "rejected")]
    for path in (home.leaf(state.leaf) / f"{table}-{state.curated}.parquet" for state, table in tables):
        ids = pq.read_table(path, columns=["id"])["id"].to_pylist()
        found += [(path, number) for number, row_id in enumerate(ids) if row_id.startswith(beginning)]
    if len(found) != 1:
        raise LabError(f"row {beginning}: {len(found) or 'no'} rows of a data set or a leaf have an id that begins so")
    path, number = found[0]
    row: RejectedRow = read_rows(path)[number]  # a curated row lacks rule and reason
    state = next(state for state in states if state.leaf == row["leaf"])
    source = home.leaf_source(state.source)  # may be gone from a home that was copied in part
    passage = next(passages_of(row, read_json(source)), None) if source.exists() else None
    span = _span(passage)
    if passage is None and row["document"]:
        named = {name: row[name] for name in ("document", "document_commit")}
        span = {**span, **named, "span": [row["span_start"], row["span_end"]]}
    review = review_of(reviews.get(row["leaf"], []), row["id"], row_text(row))
    return {
        "row": row["id"],
        "source": f"rejected, {row['rule']}: {row['reason']}" if "rule" in row else "kept, in no data set yet",
        "part": None,
        "datasets": [],
        "models": [],
        "messages": [{"role": "user", "content": asked_of(row)}, {"role": "assistant", "content": row["answer"] or ""}],
        "review": str(review) if review else None,
        "advice": advice_of(row),
        "leaf": row["leaf"],
        **{name: value for name, value in row.items() if name in _MADE_BY},
        **span,
        "text": row["support"],
    }


def _training_row(home: Home, beginning: str) -> tuple[TrainingRow | None, list[str]]:
    """Return the training row whose id, or whose curated row's id, begins with `beginning`, and the names of all data sets ever
    mixed that hold it; None and no names if there is none.

    Raises:
        LabError: several training rows fit.
    """
    holding = {
        path: {
            row["id"]
            for row in pq.read_table(path, columns=["id", "source", "source_row"]).to_pylist()
            if row["id"].startswith(beginning) or (row["source"] == "curated" and row["source_row"].startswith(beginning))
        }
        for path in home.mixed_datasets()
    }
    found = sorted(set().union(*holding.values()))
    if not found:
        return None, []
    if len(found) > 1:
        some = f": {', '.join(found[:5])}{' ...' if len(found) > 5 else ''}"
        raise LabError(f"row {beginning}: {len(found)} rows of a data set have an id that begins so{some}")
    data_sets = [path.stem for path, ids in holding.items() if ids]
    rows: list[TrainingRow] = read_rows(home.datasets / f"{data_sets[0]}.parquet")
    return next(row for row in rows if row["id"] == found[0]), data_sets


def _catalog_entries(home: Home, leaf: str) -> list[CatalogEntry]:
    """Return a leaf's entries in all catalogs, oldest first, without repetitions of the same table, source and bans."""
    entries: dict[tuple[str | None, str | None, str], CatalogEntry] = {}
    for path in sorted(home.datasets.glob("catalog-*.parquet"), key=lambda each: each.stat().st_mtime):
        for entry in pq.read_table(path, filters=[("leaf", "=", leaf)]).to_pylist():
            entries.setdefault((entry["curated"], entry["source"], str(entry.get("banned"))), entry)
    return list(entries.values())


def _commit_of(home: Home, leaf: str, fingerprint: str) -> str | None:
    """Return the taxonomy commit of the oldest snapshot in which the leaf has this fingerprint; None if there is none.

    If a snapshot was taken at several commits, this is the last of them.
    """
    found = []
    for path in home.current_snapshot.parent.glob("*.parquet"):
        matching = pq.read_table(path, columns=["leaf"], filters=[("leaf", "=", leaf), ("fingerprint", "=", fingerprint)])
        if matching.num_rows and home.snapshot_facts(path.stem).exists():
            facts = read_json(home.snapshot_facts(path.stem))
            found.append((facts["taken_at"], facts["taxonomy_commit"]))
    return min(found)[1] if found else None


def advice_of(row: CuratedRow) -> list[str]:
    """Return the advice stored with a row; none for tables of earlier releases, which lack the column."""
    return row.get("advice") or []


def check_known(home: Home, leaf: str) -> None:
    """Raise a `LabError` that suggests leaves of similar names if `known_leaves` does not have this one."""
    known = known_leaves(home)
    if leaf not in known:
        raise LabError(f"{leaf}: no such leaf; {did_you_mean(leaf, known)}")
