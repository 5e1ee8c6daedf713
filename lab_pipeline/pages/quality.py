"""The page of quality checks: what Great Expectations found in the tables that a model is trained on."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from lab_pipeline.core.home import Home
from lab_pipeline.datasets.quality import stored_results
from lab_pipeline.pages.render import render

TABLES = {
    "instruction_catalog": "Curated rows of all leaves in use",
    "knowledge_dataset": "Training rows of phase 1, knowledge",
    "skills_dataset": "Training rows of phase 2, skills",
}


def quality(request: Request) -> Response:
    """Show the last results for each table, what failed first."""
    home: Home = request.app.state.home
    tables = [(name, title, stored_results(home, name)) for name, title in TABLES.items()]
    return render(request, "quality.html.jinja", tables=tables)
