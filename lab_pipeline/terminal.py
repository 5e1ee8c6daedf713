"""Text by strangers, shown in a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with control characters spelled out: a terminal would obey those of a hostile document or contributor."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else letter.encode("unicode_escape").decode() for letter in text
    )
