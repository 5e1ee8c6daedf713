"""Pages of leaves: all with their states and problems, and one with all that is known of it."""

from __future__ import annotations

import math

from starlette.requests import Request
from starlette.responses import Response

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import FrozenLeaf
from lab_pipeline.core.storage import read_json
from lab_pipeline.instructions.plan import leaf_state
from lab_pipeline.pages.overview import summaries
from lab_pipeline.pages.render import render
from lab_pipeline.reports.lineage import leaf_lineage
from lab_pipeline.taxonomy.snapshot import current_snapshot
from lab_pipeline.teacher.spending import total

LEAVES_ON_PAGE = 100


def leaves(request: Request) -> Response:
    """List the leaves, those that need a person first, by state and by part of the key."""
    home: Home = request.app.state.home
    text, status = (request.query_params.get(name, "").strip() for name in ("text", "status"))
    given = request.query_params.get("number", "1")
    number = max(1, int(given)) if given.isascii() and given.isdigit() else 1
    snapshot = current_snapshot(home) if home.current_snapshot.exists() else None
    states, wrong = summaries(home, snapshot)
    found = [
        (key, leaf)
        for key, leaf in states.items()
        if text.casefold() in key.casefold() and status in ("", leaf["status"], "with problems" if leaf["problems"] else "")
    ]
    order = {name: place for place, name in enumerate(("failed", "quarantined", "behind"))}
    found.sort(key=lambda each: (order.get(each[1]["status"], 9), each[0]))
    first = (number - 1) * LEAVES_ON_PAGE
    return render(
        request,
        "leaves.html.jinja",
        snapshot=snapshot,
        found=found[first : first + LEAVES_ON_PAGE],
        total=len(found),
        number=number,
        last_page=max(1, math.ceil(len(found) / LEAVES_ON_PAGE)),
        text=text,
        status=status,
        statuses=[*sorted({leaf["status"] for leaf in states.values()}), "with problems"],
        wrong=wrong,
    )


def leaf(request: Request) -> Response:
    """Show one leaf: state, problems, what became of its rows, its documents and seeds, and the models trained on it."""
    home: Home = request.app.state.home
    key = request.query_params.get("key", "").strip("/")
    lineage = leaf_lineage(home, key)
    snapshot = current_snapshot(home)
    row = next((row for row in snapshot.rows if row["leaf"] == key), None)
    states, _ = summaries(home, snapshot)
    state = leaf_state(home, key)
    source: FrozenLeaf | None = None
    fingerprint = row["fingerprint"] if row and row["fingerprint"] else state.source if state else None
    if fingerprint and home.leaf_source(fingerprint).exists():
        source = read_json(home.leaf_source(fingerprint))
    if row is None and state is None and not lineage["models"]:
        raise LabError(f"{key}: not in the taxonomy, and no model was trained on it")
    documents: dict[str, list[int]] = {}
    for passage in source["passages"] if source else []:
        counts = documents.setdefault(passage["document"], [0, 0])
        counts[0] += 1
        counts[1] += len(passage["text"].split())
    return render(
        request,
        "leaf.html.jinja",
        key=key,
        row=row,
        summary=states.get(key),
        state=state,
        spent=total(state.spent.values()) if state else None,
        source=source,
        documents=documents,
        lineage=lineage,
    )
