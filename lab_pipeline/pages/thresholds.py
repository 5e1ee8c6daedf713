"""Show on the page of rejects what another threshold would change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab_pipeline.config.settings import load_settings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.reports.thresholds import known_thresholds, what_if

EXAMPLES = 5
MOST_ROWS = 5_000
"""Rows that are curated again for one page: two or three seconds of processor time."""


def threshold_asked(home: Home, leaf: str, given: Mapping[str, str]) -> dict[str, Any]:
    """Return the thresholds of the leaves' flows, and what another value would change, if the query names one.

    Args:
        leaf: key of a leaf, of a branch, or '' for all leaves.
        given: the query, of which `threshold` and `value` count.
    """
    name, value = given.get("threshold", "").strip(), given.get("value", "").strip()
    asked: dict[str, Any] = {"name": name, "value": value, "known": {}, "found": None, "said": ""}
    try:
        settings = load_settings(home.settings_file)
        asked["known"] = known_thresholds(home, settings, leaf)
        if name and value:
            asked["found"] = what_if(home, settings, leaf, (name, value), MOST_ROWS)
    except LabError as error:
        asked["said"] = str(error) if name else ""  # the overview says what is wrong with the home
    return asked
