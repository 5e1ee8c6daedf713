"""Pages of models: all that were evaluated, two side by side, and the report and card of one."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.verdict import right_answers
from lab_pipeline.evaluation.history import evaluations
from lab_pipeline.pages.comparison import (
    answers_of_both,
    data_changes,
    recipe_changes,
    report_folder,
    scores_by_leaf,
    whole_scores,
)
from lab_pipeline.pages.guard import REPORT_POLICY
from lab_pipeline.pages.render import render
from lab_pipeline.registry.champion import champion_folder, history
from lab_pipeline.reports.lineage import evaluation_of, standings


def models(request: Request) -> Response:
    """List all evaluated models, the last first, and offer to compare two."""
    home: Home = request.app.state.home
    roles = standings(home)
    found = [
        {
            **evaluation,
            "standing": roles.get(name, "candidate"),
            "right": right_answers(evaluation),
            "has_card": (champion_folder(home, name) / "README.md").exists(),
        }
        for name, evaluation in reversed(evaluations(home).items())
    ]
    return render(request, "models.html.jinja", found=found, moves=history(home)[::-1])


def compare(request: Request) -> Response:
    """Show two models side by side."""
    home: Home = request.app.state.home
    names = [request.query_params.get(name, "") for name in ("one", "other")]
    one, other = (evaluation_of(home, name) for name in names)
    return render(
        request,
        "compare.html.jinja",
        both=[one, other],
        standings=standings(home),
        whole=whole_scores(one, other),
        leaves=scores_by_leaf(one, other),
        answers=answers_of_both(home, *names),
        data=data_changes(one, other),
        recipe=recipe_changes(one, other),
    )


def report(request: Request) -> Response:
    """Show the report of an evaluation in a frame, below the navigation."""
    home: Home = request.app.state.home
    evaluation = evaluation_of(home, request.query_params.get("id", ""))
    return render(request, "report.html.jinja", evaluation=evaluation, standings=standings(home))


def report_file(request: Request) -> Response:
    """Serve the report itself, one file with its own styles, that may run and load nothing."""
    home: Home = request.app.state.home
    evaluation = evaluation_of(home, request.query_params.get("id", ""))
    file = report_folder(home, evaluation) / "report.html"
    if not file.exists():
        raise LabError(f"{file}: the report is no longer in the home")
    headers = {"Content-Security-Policy": REPORT_POLICY, "X-Frame-Options": "SAMEORIGIN"}
    return HTMLResponse(file.read_text(encoding="utf-8"), headers=headers)


def card(request: Request) -> Response:
    """Show the card of a present or past champion."""
    home: Home = request.app.state.home
    name = request.query_params.get("id", "")
    if name not in {move["id"] for move in history(home)}:
        raise LabError(f"{name}: no champion; only a promoted model has a card")
    file = champion_folder(home, name) / "README.md"
    if not file.exists():
        raise LabError(f"{file}: the model's folder was cleaned up")
    return render(request, "card.html.jinja", name=name, text=file.read_text(encoding="utf-8"))
