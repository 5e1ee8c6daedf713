"""Pages of rows: search them, look at one, ban or pin it, and see by which rules rows were rejected."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast, get_args

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import CuratedRow
from lab_pipeline.core.storage import digest, read_json
from lab_pipeline.flows.flow import load_flow
from lab_pipeline.flows.prompts import FlowError
from lab_pipeline.instructions.plan import LeafState, leaf_state
from lab_pipeline.pages.excerpts import excerpt_of
from lab_pipeline.pages.guard import Form
from lab_pipeline.pages.links import page
from lab_pipeline.pages.render import render
from lab_pipeline.pages.thresholds import EXAMPLES, threshold_asked
from lab_pipeline.reports.inspection import review_rows
from lab_pipeline.reports.lineage import advice_of, users_of
from lab_pipeline.reports.search import FoundRow, Query, find_row, find_rows, refreshed_leaves, stage_of
from lab_pipeline.taxonomy.reviews import Decision, Review, review_of, reviews_in_force, row_text

ROWS_ON_PAGE = 50
STAGES = ("generated", "judged", "curated", "review", "knowledge data set", "skills data set")
_NO_REJECTS = ("generated", "kept")


def rows(request: Request) -> Response:
    """Search rows by leaf, fate, score and text, and show a page of them."""
    home: Home = request.app.state.home
    query, number = _query(request), _page_number(request)
    states = refreshed_leaves(home)
    found = find_rows(home, states, query, (number - 1) * ROWS_ON_PAGE, ROWS_ON_PAGE)
    reviews = _reviews(home)
    return render(
        request,
        "rows.html.jinja",
        query=query,
        asked={**vars(query)},
        found=found,
        items=[_item(each, reviews) for each in found.rows],
        number=number,
        first=(number - 1) * ROWS_ON_PAGE + 1,
        last_page=max(1, math.ceil(found.total / ROWS_ON_PAGE)),
        leaves=[state.leaf for state in states],
        stages=STAGES,
        rules=sorted({rule for state in states for rule in state.funnel if rule not in _NO_REJECTS} | {query.rule} - {""}),
        judges=sorted({score["judge"] for each in found.rows for score in each["row"]["scores"] or []}),
    )


def row(request: Request) -> Response:
    """Show all that is known of one row."""
    home: Home = request.app.state.home
    found = find_row(home, *_named(request.query_params))
    made = found["row"]
    state = leaf_state(home, made["leaf"])
    data_sets, models = users_of(home, made["id"])
    return render(
        request,
        "row.html.jinja",
        item=_item(found, _reviews(home)),
        excerpt=excerpt_of(home, made),
        data_sets=data_sets,
        models=models,
        provenance=_provenance(home, state) if state else {},
        prompts=_prompts(home, made, state),
    )


def review(request: Request, form: Form) -> Response:
    """Record a ban, a pin or that one is taken back; answer with the row as it is now."""
    home: Home = request.app.state.home
    leaf, row_id = _named(form)
    decision = form.get("decision", "")
    if decision not in get_args(Decision):
        raise HTTPException(400, f"decision: expected {', '.join(get_args(Decision))}")
    reason = form.get("reason", "").strip() or ("taken back" if decision == "undo" else "")
    said = ""
    try:
        if not reason:
            raise LabError("Say why: the reason is kept with the row, for whoever asks later.")
        review_rows(home, leaf, cast(Decision, decision), [row_id], request.state.user, reason)
    except LabError as error:
        said = str(error)
    if "hx-request" in request.headers:
        item = _item(find_row(home, leaf, row_id), _reviews(home))
        return render(request, "row_card.html.jinja", item=item, said=said, on_page=form.get("on_page") == "yes")
    if said:
        raise HTTPException(400, said)
    return RedirectResponse(request.app.state.access.prefix + page("row", leaf=leaf, id=row_id), 303)


def rejects(request: Request) -> Response:
    """Show how many rows each stage and rule rejected, over all leaves and by leaf, and what another threshold would change."""
    home: Home = request.app.state.home
    leaf = request.query_params.get("leaf", "").strip("/")
    states = [each for each in refreshed_leaves(home) if not leaf or f"{each.leaf}/".startswith(f"{leaf}/")]
    rules: Counter[str] = Counter()
    worst: dict[str, tuple[int, LeafState]] = {}
    for state in states:
        for rule, count in state.funnel.items():
            if rule not in _NO_REJECTS:
                rules[rule] += count
                worst[rule] = max(worst.get(rule, (0, state)), (count, state), key=lambda each: each[0])
    generated = sum(state.funnel["generated"] for state in states)
    by_rule = [
        {"rule": rule, "stage": stage_of(rule), "rows": count, "share": count / max(generated, 1), "worst": worst[rule]}
        for rule, count in rules.most_common()
        if count
    ]
    kept = sum(state.funnel["kept"] for state in states)
    least_kept = sorted(states, key=lambda state: state.funnel["kept"] / max(state.funnel["generated"], 1))[:20]
    return render(
        request,
        "rejects.html.jinja",
        leaf=leaf,
        generated=generated,
        kept=kept,
        by_rule=by_rule,
        least_kept=least_kept,
        asked=threshold_asked(home, leaf, request.query_params),
        examples=EXAMPLES,
    )


def _query(request: Request) -> Query:
    given = {name: value.strip() for name, value in request.query_params.items()}
    bounds = {}
    for name in ("least", "most"):
        try:
            bounds[name] = float(given[name].replace(",", ".")) if given.get(name) else None
        except ValueError:
            raise HTTPException(400, f"{name}: expected a score such as 0.5, found {given[name]!r:.40}") from None
    texts = {name: given.get(name, "") for name in ("leaf", "status", "stage", "rule", "judge", "text", "id")}
    return replace(Query(**texts), **bounds)  # type: ignore[arg-type]


def _page_number(request: Request) -> int:
    given = request.query_params.get("number", "1")
    return min(max(1, int(given)), 10**9) if given.isascii() and given.isdigit() else 1


def _named(given: Mapping[str, str]) -> tuple[str, str]:
    """Return the leaf and the row's id that a query or form names."""
    leaf, row_id = given.get("leaf", ""), given.get("id", "")
    if not leaf or not row_id:
        raise HTTPException(400, "expected the key of a leaf and the id of a row")
    return leaf, row_id


def _reviews(home: Home) -> dict[str, list[Review]]:
    facts = read_json(home.current_snapshot) if home.current_snapshot.exists() else {}  # not its rows, which may be many
    return reviews_in_force(home, facts.get("reviews", []))


def _item(found: FoundRow, reviews: Mapping[str, Sequence[Review]]) -> dict[str, Any]:
    row = found["row"]
    return {
        **found,
        "review": review_of(reviews.get(row["leaf"], []), row["id"], row_text(row)),
        "advice": advice_of(row),
        "scores": row["scores"] or [],
    }


def _provenance(home: Home, state: LeafState) -> dict[str, Any]:
    file = home.provenance(state.leaf, state.curated)
    return read_json(file) if file.exists() else {}


def _prompts(home: Home, row: CuratedRow, state: LeafState | None) -> list[dict[str, Any]]:
    """Return name and text of each prompt of the row's flow; without a text where the flow's prompt has changed since."""
    recorded = _provenance(home, state).get("prompts", {}) if state else {}
    try:
        present = load_flow(row["flow"]).prompts
    except FlowError:  # a folder that is gone, or a custom flow, of which a row has the name only
        present = {}
    return [
        {"name": name, "text": present[name] if name in present and digest(present[name]) == hash_ else None, "digest": hash_}
        for name, hash_ in recorded.items()
    ]
