"""Address the pages: from each other by paths, and from elsewhere, such as the Dagster UI, by http links."""

from __future__ import annotations

import os
from urllib.parse import urlencode

from lab_pipeline.config.settings import Settings

PORT = 3001
"""Default port of the pages: the one after the Dagster UI's."""
ADDRESS = "LAB_PAGES_URL"
"""Environment variable by which `lab-pipeline ui` tells its runs where it serves the pages."""


def page(name: str, **query: object) -> str:
    """Return the path of a page with its query, without parts that are None or ''.

    Leaves, rows and models are in the query, never in the path: a browser or proxy rewrites paths such as `a/../b`.
    """
    given = {key: value for key, value in query.items() if value not in (None, "")}
    return f"/{name}?{urlencode(given)}" if given else f"/{name}"


def link(settings: Settings, name: str, **query: object) -> str:
    """Return the http link to a page: below the setting `pages.url`, else where `lab-pipeline ui` serves the pages, else where
    it would by default."""
    address = settings.pages.url or os.environ.get(ADDRESS) or f"http://127.0.0.1:{PORT}"
    return address.rstrip("/") + page(name, **query)
