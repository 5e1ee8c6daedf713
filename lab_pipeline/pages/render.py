"""Render the pages' templates, in which every text of a taxonomy, row or model is escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import yaml
from markdown_it import MarkdownIt
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse

from lab_pipeline.core.home import Home
from lab_pipeline.pages.access import Access
from lab_pipeline.pages.links import page

FOLDER = Path(__file__).parent
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")


def number(value: float | None, digits: int = 3) -> str:
    """Format a number with a true minus and thin thousands; '–' for None."""
    return "–" if value is None else f"{value:,.{digits}f}".replace("-", "−").replace(",", "\u202f")


def when(time: str | None) -> str:
    """Shorten an ISO 8601 time to minutes."""
    return (time or "")[:16].replace("T", " ")


def breakable(text: str | None) -> Markup:
    """Escape a leaf's key, file or id, and allow a line break after each slash."""
    return Markup("/<wbr>").join((text or "").split("/"))


def markdown(text: str) -> Markup:
    """Render Markdown without its front matter; HTML in it is shown as text, and pictures are left out."""
    body = text.split("\n---\n", 1)[1] if text.startswith("---\n") and "\n---\n" in text else text
    return Markup(_MARKDOWN.render(body))


def as_yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100).rstrip()


_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(FOLDER / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters.update(number=number, when=when, breakable=breakable, markdown=markdown, as_yaml=as_yaml)


def render(request: Request, template: str, code: int = 200, **context: Any) -> HTMLResponse:
    """Answer with a template; `page` makes links in it, `token` is the token of its forms."""
    access: Access = request.app.state.access
    home: Home = request.app.state.home
    user = getattr(request.state, "user", None)
    text = _TEMPLATES.get_template(template).render(
        page=lambda name, **query: access.prefix + page(name, **query),
        token=access.form_token(user or ""),
        user=user,
        may_log_out=bool(access.tokens) and not access.user_header,
        home_name=home.root.name,
        here=request.url.path.lstrip("/"),
        **context,
    )
    return HTMLResponse(text, code)
