"""Text by strangers, shown in a terminal."""

from __future__ import annotations

import re
from typing import Any


def printable(text: str) -> str:
    """The text with control characters spelled out: a terminal would obey those of a hostile document or contributor."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else letter.encode("unicode_escape").decode() for letter in text
    )


def cell(value: Any) -> str:
    """A contributor's text as one line that can neither leave its table cell nor be markup."""
    text = " ".join(str(value if value is not None else "-").split())
    return re.sub(r"([\\`\[\]|])", r"\\\1", text).replace("&", "&amp;").replace("<", "&lt;")


def number(value: float | None) -> str:
    """A loss as reports show it; '-' where nothing could be measured."""
    return "-" if value is None else f"{value:.3f}"


def took(chosen: dict[str, Any]) -> str:
    """Which epoch a phase's adapter is from, and why; `chosen` is a `Choice` as it is written down."""
    return f"Epoch {chosen['epoch']} of {chosen['of']} was taken: {chosen['why']}" if chosen["epoch"] else chosen["why"]
