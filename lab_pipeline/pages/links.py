"""Address the pages: from each other by paths, and from elsewhere, such as the Dagster UI, by http links."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlencode

from lab_pipeline.config.settings import Settings
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import read_json, write_json

PORT = 3001
"""Default port of the pages: the one after the Dagster UI's."""


def page(name: str, **query: object) -> str:
    """Return the path of a page with its query, without parts that are None or ''.

    Leaves, rows and models are in the query, never in the path: a browser or proxy rewrites paths such as `a/../b`.
    """
    given = {key: value for key, value in query.items() if value not in (None, "")}
    return f"/{name}?{urlencode(given)}" if given else f"/{name}"


def link(home: Home, settings: Settings, name: str, **query: object) -> str:
    """Return the http link to a page: below the setting `pages.url`, else where the pages were last served, else where
    `lab-pipeline ui` would serve them by default."""
    recorded = read_json(_record(home))["address"] if _record(home).exists() else f"http://127.0.0.1:{PORT}"
    return (settings.pages.url or recorded).rstrip("/") + page(name, **query)


def record_address(home: Home, address: str) -> None:
    """Record where the pages of a home are served, for the links of later runs, whoever starts them."""
    write_json(_record(home), {"address": address})


def _record(home: Home) -> Path:
    return home.root / "pages.json"
