"""Questions of lineage, both ways: what a model was taught by, which models hold a leaf, where a row comes from."""

from __future__ import annotations

import json
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import jinja2
import pyarrow.parquet as pq

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.formats import printable
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import read_json, read_rows
from lab_pipeline.datasets.catalog import curated_rows
from lab_pipeline.datasets.rows import document_row, seed_row
from lab_pipeline.instructions.plan import leaf_state
from lab_pipeline.registry.champion import current_champion, history, name_withdrawals
from lab_pipeline.registry.lineage import build_lineage
from lab_pipeline.taxonomy.documents.passages import passages_of
from lab_pipeline.taxonomy.reviews import Review, asked_of, review_of, reviews_in_force, row_text, text_digest
from lab_pipeline.taxonomy.snapshot import current_snapshot
from lab_pipeline.taxonomy.withdrawals import Withdrawal, record_withdrawal, withdrawals


def evaluations(home: Home) -> dict[str, dict[str, Any]]:
    """The last evaluation of each candidate that was ever measured, by its id, oldest first."""
    found = [read_json(path) for path in home.evaluations.glob("*/evaluation.json")]
    return {evaluation["candidate"]: evaluation for evaluation in sorted(found, key=lambda each: each["evaluated_at"])}


def evaluation_of(home: Home, candidate: str) -> dict[str, Any]:
    """The last evaluation of a candidate.

    Raises:
        LabError: no candidate of that id was evaluated.
    """
    known = evaluations(home)
    if candidate not in known:
        raise LabError(f"{candidate}: no candidate of this id was evaluated{_near(candidate, known)}")
    return known[candidate]


def model_lineage(home: Home, model: str) -> dict[str, Any]:
    """What a model was taught by: `lineage.json` of a champion, the same of a candidate; with the leaves withdrawn since.

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
    held = {leaf["leaf"]: str(withdrawn[leaf["leaf"]]) for leaf in lineage["leaves"] if leaf["leaf"] in withdrawn}
    return {**lineage, "withdrawn": held}


def known_leaves(home: Home) -> set[str]:
    """Keys of the leaves in the current snapshot, in any model, and of those withdrawn."""
    in_taxonomy = {row["leaf"] for row in current_snapshot(home).rows} if home.current_snapshot.exists() else set()
    in_models = {leaf for evaluation in evaluations(home).values() for leaf in evaluation["catalog"]}
    return in_taxonomy | in_models | withdrawals(home).keys()


def leaf_lineage(home: Home, leaf: str) -> dict[str, Any]:
    """The models that hold a leaf: `models`, oldest first, each with its rows of the leaf; and its withdrawal, if any.

    Raises:
        LabError: no such leaf is known, with those of similar names.
    """
    check_known(home, leaf)
    champion = current_champion(home)
    champions = {move["id"] for move in history(home)}
    models = []
    for name, evaluation in evaluations(home).items():
        for held in evaluation["leaves"]:
            if held["leaf"] == leaf:
                standing = "earlier champion" if name in champions else "candidate"
                models.append(
                    {
                        "model": name,
                        "standing": "champion" if champion and champion.id == name else standing,
                        "outcome": evaluation["verdict"]["outcome"],
                        "rows": held["rows"],
                        "document_commit": held["document_commit"],
                        "taxonomy_commit": evaluation["taxonomy_commit"],
                        "evaluated_at": evaluation["evaluated_at"],
                    }
                )
    withdrawal = withdrawals(home).get(leaf)
    return {"leaf": leaf, "withdrawn": str(withdrawal) if withdrawal else None, "models": models}


def withdraw(home: Home, leaf: str, author: str, reason: str, undo: bool = False) -> Withdrawal:
    """Take a leaf out of all later data sets and tests, or back in, and name it on the cards of the models that hold it.

    Raises:
        LabError: no such leaf is known, it stands so already, or author or reason is blank.
    """
    check_known(home, leaf)
    withdrawal = record_withdrawal(home, leaf, author, reason, withdrawn=not undo)
    name_withdrawals(home)
    return withdrawal


def row_lineage(home: Home, row_id: str) -> dict[str, Any]:
    """Where a training row comes from: leaf, commits, flow, and for a row made from a document the span and its text; and
    what people decided about it.

    Args:
        row_id: id of a row of a data set, or of a row of a leaf that no data set took in; its beginning is enough where no
            other row begins so.

    Raises:
        LabError: no row, or several, are called so.
    """
    reviews = reviews_in_force(home, current_snapshot(home).reviews)
    row, data_sets = _training_row(home, row_id)
    if row is None:
        return _leaf_row(home, row_id, reviews)
    found = {
        "row": row["id"],
        "source": row["source"],
        "datasets": data_sets,
        "models": [name for name, made in evaluations(home).items() if _is_in(made["datasets"], data_sets)],
        "messages": row["messages"],
        "part": row.get("part", "train"),  # earlier releases validated on none
    }
    if row["source"] == "replay":
        original = row_lineage(home, row["source_row"])
        return {**original, **found, "replays": original["row"]}
    if row["source"] == "raft":
        original = row_lineage(home, row["source_row"])
        return {**original, **found, "asks_again": original["row"]}
    if row["source"] == "own":
        return {**found, "leaf": None, "file": row["source_row"]}
    if row["source"] == "general":
        return {**found, "leaf": None, "question": row["source_row"]}
    text = text_digest(row["messages"][0]["content"], row["messages"][-1]["content"])
    review = review_of(reviews.get(row["leaf"], []), row["source_row"], text)
    return {**found, "leaf": row["leaf"], "review": str(review) if review else None, **_origin(home, row)}


def as_text(kind: str, answer: dict[str, Any]) -> str:
    """The answer to a question for a terminal; `kind` is model, leaf or row."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(Path(__file__).with_name("lineage.txt.jinja").read_text(encoding="utf-8"))
    return printable(template.render(kind=kind, **answer).rstrip("\n"))


def _origin(home: Home, row: dict[str, Any]) -> dict[str, Any]:
    """What a curated, seed or document row was made from, found in the sources and tables that catalogs have named."""
    leaf, wanted = row["leaf"], row["source_row"]
    metadata = json.loads(row["metadata"])
    for entry in _catalog_entries(home, leaf):
        source = read_json(home.leaf_source(entry["source"]))
        if row["source"] == "curated":
            for made in curated_rows(home, entry):
                # equal rows may have been made at two commits: the training row says which
                if made["id"] == wanted and made["taxonomy_commit"] == metadata["taxonomy_commit"]:
                    facts = home.provenance(leaf, entry["curated"])
                    return {
                        **(read_json(facts) if facts.exists() else {}),
                        **{key: made[key] for key in ("taxonomy_commit", "flow", "flow_version", "teacher", "support")},
                        **_span(next(passages_of(made, source), None)),
                    }
        elif row["source"] == "seed" and any(seed_row(leaf, seed)["source_row"] == wanted for seed in source["seeds"]):
            return {"taxonomy_commit": _commit_of(home, leaf, entry["source"]), "file": f"{leaf}/qna.yaml"}
        else:
            for passage in source["passages"]:
                if row["source"] == "document" and document_row(leaf, source["domain"], passage)["source_row"] == wanted:
                    return {"taxonomy_commit": _commit_of(home, leaf, entry["source"]), **_span(passage)}
    raise LabError(f"row {row['id']}: the tables of {leaf} that it came from are no longer in the home")


def _span(passage: dict[str, Any] | None) -> dict[str, Any]:
    if passage is None:
        return {"document": None, "document_commit": None, "span": None, "text": None}
    return {
        "document": passage["document"],
        "document_commit": passage["commit"],
        "span": [passage["start"], passage["end"]],
        "text": passage["text"],
    }


def _leaf_row(home: Home, beginning: str, reviews: dict[str, list[Review]]) -> dict[str, Any]:
    """A row of a leaf's last good tables that is in no data set: banned, rejected by a rule, or not mixed yet."""
    found = []
    for leaf in sorted(known_leaves(home)):
        state = leaf_state(home, leaf)
        for table in ("curated", "rejected") if state else ():
            assert state
            path = home.leaf(leaf) / f"{table}-{state.curated}.parquet"
            ids = pq.read_table(path, columns=["id"])["id"].to_pylist()
            found += [(path, number) for number, name in enumerate(ids) if name.startswith(beginning)]
    if len(found) != 1:
        raise LabError(f"row {beginning}: {len(found) or 'no'} rows of a data set or a leaf have an id that begins so")
    path, number = found[0]
    row = read_rows(path)[number]
    review = review_of(reviews.get(row["leaf"], []), row["id"], row_text(row))
    return {
        "row": row["id"],
        "source": f"rejected, {row['rule']}: {row['reason']}" if "rule" in row else "kept, in no data set yet",
        "part": None,
        "datasets": [],
        "models": [],
        "messages": [
            {"role": "user", "content": asked_of(row)},
            {"role": "assistant", "content": row["answer"] or ""},
        ],
        "review": str(review) if review else None,
        **{
            key: row[key]
            for key in ("leaf", "taxonomy_commit", "flow", "flow_version", "teacher", "document", "document_commit")
        },
        "span": None if row["span_start"] is None else [row["span_start"], row["span_end"]],
        "text": row["support"],
    }


def _training_row(home: Home, beginning: str) -> tuple[dict[str, Any] | None, list[str]]:
    """The one row whose id begins so, else the one made of a leaf's row of such an id; and the data sets that hold it."""
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
    rows = read_rows(home.datasets / f"{data_sets[0]}.parquet")
    return next(row for row in rows if row["id"] == found[0]), data_sets


def _is_in(made: dict[str, str], data_sets: list[str]) -> bool:
    return any(f"{phase}-{digest}" in data_sets for phase, digest in made.items())


def _catalog_entries(home: Home, leaf: str) -> list[dict[str, Any]]:
    """The entries by which catalogs ever took rows of a leaf, each once, oldest first."""
    entries: dict[tuple[str, str, str], dict[str, Any]] = {}
    for path in sorted(home.datasets.glob("catalog-*.parquet"), key=lambda each: each.stat().st_mtime):
        for entry in pq.read_table(path, filters=[("leaf", "=", leaf)]).to_pylist():
            if entry["source"]:
                entries.setdefault((entry["curated"], entry["source"], str(entry.get("banned"))), entry)
    return list(entries.values())


def _commit_of(home: Home, leaf: str, fingerprint: str) -> str | None:
    """The taxonomy commit of the oldest snapshot that found the leaf so; the last commit, if its rows were found at several."""
    found = []
    for path in home.current_snapshot.parent.glob("*.parquet"):
        seen = pq.read_table(path, columns=["leaf"], filters=[("leaf", "=", leaf), ("fingerprint", "=", fingerprint)])
        if seen.num_rows and home.snapshot_facts(path.stem).exists():
            facts = read_json(home.snapshot_facts(path.stem))
            found.append((facts["taken_at"], facts["taxonomy_commit"]))
    return min(found)[1] if found else None


def check_known(home: Home, leaf: str) -> None:
    """Raise a `LabError` with the leaves of similar names if there is no such leaf."""
    known = known_leaves(home)
    if leaf not in known:
        raise LabError(f"{leaf}: no such leaf{_near(leaf, known)}")


def _near(name: str, known: Collection[str]) -> str:
    """What was probably meant: names that look alike, or whose last part is the one given."""
    alike = get_close_matches(name, known, n=3) or sorted(each for each in known if each.endswith(name.rsplit("/", 1)[-1]))[:3]
    return f"; did you mean {' or '.join(alike)}?" if alike else f"; there are: {', '.join(sorted(known)[:10]) or 'none yet'}"
