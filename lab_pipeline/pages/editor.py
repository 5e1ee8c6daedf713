"""The page on which a leaf is written or edited, with what the validator says of it beside the text."""

from __future__ import annotations

from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from lab_pipeline.config.settings import load_settings
from lab_pipeline.core.home import Home
from lab_pipeline.pages.drafts import Draft, as_patch, draft_passages, key_problem, new_draft, present_draft
from lab_pipeline.pages.guard import Form
from lab_pipeline.pages.render import render
from lab_pipeline.taxonomy.find import QNA
from lab_pipeline.taxonomy.leaf import ATTRIBUTION

_MOST_SHOWN = 30


def edit(request: Request) -> Response:
    """Open a leaf of the taxonomy, or the beginning of a new one."""
    home: Home = request.app.state.home
    leaf = request.query_params.get("leaf", "").strip("/")
    kind = request.query_params.get("kind", "")
    draft = present_draft(home, load_settings(home.settings_file), leaf) if leaf else new_draft(kind)
    return render(request, "edit.html.jinja", draft=draft, new=not leaf, reading=draft.check())


def check(request: Request, form: Form) -> Response:
    """Say what is wrong with the text as it is now."""
    return render(request, "problems.html.jinja", reading=_draft(form).check())


def preview(request: Request, form: Form) -> Response:
    """Show the seeds as they are read, and the passages of the documents."""
    home: Home = request.app.state.home
    reading = _draft(form).check()
    found, unread = draft_passages(home, load_settings(home.settings_file), reading) if reading.usable else ([], "")
    return render(request, "preview.html.jinja", reading=reading, passages=found[:_MOST_SHOWN], count=len(found), unread=unread)


def save(request: Request, form: Form) -> Response:
    """Send the leaf as a file, or what changed as a patch; nothing is written to the taxonomy."""
    home: Home = request.app.state.home
    draft, what = _draft(form), form.get("what", "")
    if wrong := key_problem(draft.key):
        raise HTTPException(400, wrong)
    name = draft.key.rsplit("/", 1)[1]
    if what == "patch":
        text = as_patch(present_draft(home, load_settings(home.settings_file), draft.key), draft)
        if not text:
            raise HTTPException(400, "nothing differs from the taxonomy, so there is no patch")
        return _download(text, f"{name}.patch")
    if what in (QNA, ATTRIBUTION):
        return _download(dict(draft.files())[what], what)
    raise HTTPException(400, f"expected patch, {QNA} or {ATTRIBUTION}")


def _draft(form: Form) -> Draft:
    return Draft(form.get("key", "").strip().strip("/"), form.get("qna", ""), form.get("attribution", ""))


def _download(text: str, name: str) -> Response:
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}
    return Response(text, media_type="text/plain; charset=utf-8", headers=headers)
