"""Split plain text into sentences."""

from __future__ import annotations

import re

from sentencex import segment

_CODES = {
    "Arabic": "ar", "Chinese": "zh", "Czech": "cs", "Dutch": "nl", "French": "fr", "German": "de", "Greek": "el", "Hindi": "hi",
    "Italian": "it", "Japanese": "ja", "Polish": "pl", "Portuguese": "pt", "Russian": "ru", "Spanish": "es", "Turkish": "tr",
}  # fmt: skip
"""Codes of languages by name, where sentencex knows more than the marks of all scripts: their abbreviations."""


_AFTER_MAY = re.compile(r"(?<=\bMay\.)\s+(?=[A-Z])")
"""sentencex 1.0.32 takes the month May at the end of a sentence for an abbreviation."""


def sentences(text: str, language: str | None = "English") -> list[str]:
    """Split plain text into sentences, by the marks and abbreviations of the language; of English if it is not known."""
    parts = segment(_CODES.get(language or "", "en"), text)
    return [sentence for part in parts for each in _AFTER_MAY.split(part) if (sentence := each.strip())]
