"""Detect the language of texts, even of texts as short as a question, or of a leaf full of invented names."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Any

from lab_pipeline.text.words import all_words, names

_CLEAR_WORDS = 30
"""Minimum number of `telling_words` from which `main_language` names a language."""


@cache
def _detector() -> Any:
    from lingua import LanguageDetectorBuilder

    return LanguageDetectorBuilder.from_all_languages().with_low_accuracy_mode().build()


def telling_words(text: str) -> list[str]:
    """Return the words by which a language can be told: those that are not code, URLs, figures or possible names."""
    prose = re.sub(r"```.*?(?:```|$)|`[^`]*`|https?://\S+", " ", text, flags=re.DOTALL)
    named = set(names(prose))
    return [word for chunk in prose.split() if not _is_neutral(chunk, named) for word in all_words(chunk)]


def _is_neutral(word: str, named: set[str]) -> bool:
    bare = re.sub(r"^\W+|\W+$|['’]s$", "", word)
    is_name = bare[:1].isupper() and (bare in named or bare.isupper())
    return not bare or is_name or bool(re.search(r"[\d_/\\=(){}\[\]<>]|\w[.:]\w", bare))


def scripts(text: str) -> set[str]:
    """Return the scripts of a text's words by Unicode name, such as LATIN; single letters are skipped: they may be formulas."""
    return {unicodedata.name(letter, "").split(" ")[0] for word in re.findall(r"[^\W\d_]{2,}", text) for letter in word}


def main_language(texts: list[str]) -> str | None:
    """Return the English name of the most probable language of all texts taken together; None if they have too few words."""
    words = [word for text in texts for word in telling_words(text)]
    found = _detector().detect_language_of(" ".join(words)) if len(words) >= _CLEAR_WORDS else None
    return found.name.capitalize() if found else None


def language_probability(words: list[str], language: str) -> float:
    """Return the probability, from 0 to 1, that words are in a language.

    Args:
        words: The `telling_words` of a text.
        language: English name, as from `main_language`.
    """
    for value in _detector().compute_language_confidence_values(" ".join(words)):
        if value.language.name.capitalize() == language:
            return float(value.value)
    return 0.0
