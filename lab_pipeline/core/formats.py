"""Format texts and numbers for terminals and reports."""

from __future__ import annotations

import re
from typing import Any

from lab_pipeline.core.rows import EpochChoice


def printable(text: str) -> str:
    """Escape control characters, so that a hostile document or contributor cannot control the terminal."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else letter.encode("unicode_escape").decode() for letter in text
    )


def cell(value: Any) -> str:
    """Put a contributor's text on one line and escape it, so that it neither leaves its table cell nor acts as markup."""
    text = " ".join(str(value if value is not None else "-").split())
    return re.sub(r"([\\`\[\]|])", r"\\\1", text).replace("&", "&amp;").replace("<", "&lt;")


def number(value: float | None) -> str:
    """Format a loss for reports, with '-' if nothing could be measured."""
    return "-" if value is None else f"{value:.3f}"


def took(chosen: EpochChoice) -> str:
    """Say which epoch's adapter was chosen for a phase, and why."""
    return f"Epoch {chosen['epoch']} of {chosen['of']} was taken: {chosen['why']}" if chosen["epoch"] else chosen["why"]
