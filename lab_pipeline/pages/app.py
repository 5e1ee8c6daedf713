"""Put the pages together: which address shows what, and what is said if it cannot."""

from __future__ import annotations

import re
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.pages import editor, leaves, models, overview, quality, rows
from lab_pipeline.pages.access import Access
from lab_pipeline.pages.guard import Form, Guard, posted
from lab_pipeline.pages.links import page
from lab_pipeline.pages.render import FOLDER, render

_PAGE = re.compile(r"[a-z]+(\?\S*)?")


def build_app(home: Home, access: Access) -> Starlette:
    """Return the pages of a home as an ASGI application. Its files are read anew for each page."""
    app = Starlette(
        routes=[
            Route("/", overview.overview),
            Route("/leaves", leaves.leaves),
            Route("/leaf", leaves.leaf),
            Route("/rows", rows.rows),
            Route("/row", rows.row),
            Route("/review", posted(rows.review), methods=["POST"]),
            Route("/rejects", rows.rejects),
            Route("/quality", quality.quality),
            Route("/models", models.models),
            Route("/compare", models.compare),
            Route("/card", models.card),
            Route("/report", models.report),
            Route("/reportfile", models.report_file),
            Route("/edit", editor.edit),
            Route("/check", posted(editor.check), methods=["POST"]),
            Route("/preview", posted(editor.preview), methods=["POST"]),
            Route("/save", posted(editor.save), methods=["POST"]),
            Route("/login", login),
            Route("/login", posted(log_in), methods=["POST"]),
            Route("/logout", posted(log_out), methods=["POST"]),
            Mount("/static", StaticFiles(directory=Path(FOLDER) / "static")),
        ],
        middleware=[Middleware(Guard, access=access)],
        exception_handlers={HTTPException: _refusal, LabError: _fixable, Exception: _failure},
    )
    app.state.home, app.state.access = home, access
    return app


def login(request: Request) -> Response:
    """Ask for a login token."""
    return render(request, "login.html.jinja", to=request.query_params.get("to", ""), wrong=False)


def log_in(request: Request, form: Form) -> Response:
    """Log the holder of a token in, and go on to the page that was wanted."""
    access: Access = request.app.state.access
    cookie = access.login(form.get("secret", "").strip())
    wanted = form.get("to", "")
    if cookie is None:
        return render(request, "login.html.jinja", 403, to=wanted, wrong=True)
    # only a page of this server: a path such as /\elsewhere would lead a browser away
    response = RedirectResponse(f"{access.prefix}/{wanted if _PAGE.fullmatch(wanted) else ''}", 303)
    secure = any(origin.startswith("https:") for origin in access.origins)
    path = access.prefix or "/"
    response.set_cookie(access.cookie, cookie, path=path, secure=secure, httponly=True, samesite="lax")
    return response


def log_out(request: Request, form: Form) -> Response:
    access: Access = request.app.state.access
    response = RedirectResponse(access.prefix + page("login"), 303)
    response.delete_cookie(access.cookie, path=access.prefix or "/")
    return response


def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    why = "There is no such page." if error.status_code == 404 and error.detail == "Not Found" else error.detail
    return render(request, "error.html.jinja", error.status_code, why=why)


def _fixable(request: Request, error: Exception) -> Response:
    return render(request, "error.html.jinja", 404, why=str(error))


def _failure(request: Request, error: Exception) -> Response:
    """Answer for a defect, whose traceback is in the server's log. This response does not pass the guard, so it is no page."""
    return PlainTextResponse("The server failed; its log says where.", 500)
