"""Format texts and numbers for terminals and reports."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab_pipeline.core.rows import EpochChoice


def printable(text: str) -> str:
    """Escape unprintable characters except line breaks and tabs, so that a hostile text cannot control the terminal."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else letter.encode("unicode_escape").decode() for letter in text
    )


def cell(value: Any) -> str:
    """Format a contributor's text for a cell of a Markdown table: on one line, Markdown and HTML escaped; '-' for None."""
    text = " ".join(str(value if value is not None else "-").split())
    return re.sub(r"([\\`\[\]|])", r"\\\1", text).replace("&", "&amp;").replace("<", "&lt;")


def number(value: float | None) -> str:
    """Format a loss with three decimals; '-' for None, which means that nothing could be measured."""
    return "-" if value is None else f"{value:.3f}"


def took(chosen: EpochChoice) -> str:
    """Say which epoch's adapter a training phase took, and why; without an epoch (nothing was trained), only why."""
    return f"Epoch {chosen['epoch']} of {chosen['of']} was taken: {chosen['why']}" if chosen["epoch"] else chosen["why"]


def duration(seconds: float) -> str:
    """Format a time as a person says it: '40 s', '23 min', '2 h 10 min', '3 days 4 h'."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} days {minutes % 1440 // 60} h"


def did_you_mean(name: str, known: Iterable[str], most: int = 10) -> str:
    """End a message about an unknown name with the known names that are like it or end alike, else with some that exist."""
    names = sorted(known)
    ending = name.rsplit("/", 1)[-1]
    if similar := get_close_matches(name, names, 3) or [each for each in names if ending and each.endswith(ending)][:3]:
        return f"did you mean {' or '.join(similar)}?"
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return f"there are: {', '.join(names[:most]) or 'none yet'}{more}"
