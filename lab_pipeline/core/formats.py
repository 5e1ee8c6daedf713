"""Format texts and numbers for terminals and reports."""

from __future__ import annotations

import re
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
