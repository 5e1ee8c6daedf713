"""Detect languages, also of texts as short as a question and as full of invented names as a leaf."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Any

from lab_pipeline.text.words import all_words, names

_CLEAR_WORDS = 30
"""With fewer words, not counting names, the language is unclear."""


@cache
def _detector() -> Any:
    from lingua import LanguageDetectorBuilder

    return LanguageDetectorBuilder.from_all_languages().with_low_accuracy_mode().build()


def telling_words(text: str) -> list[str]:
    """Return the words that show a language, without code, figures and possible names, which look like any language."""
    prose = re.sub(r"```.*?(?:```|$)|`[^`]*`|https?://\S+", " ", text, flags=re.DOTALL)
    named = set(names(prose))
    return [word for part in prose.split() if not _is_neutral(part, named) for word in all_words(part)]


def _is_neutral(word: str, named: set[str]) -> bool:
    bare = re.sub(r"^\W+|\W+$|['’]s$", "", word)
    is_name = bare[:1].isupper() and (bare in named or bare.isupper())
    return not bare or is_name or bool(re.search(r"[\d_/\\=(){}\[\]<>]|\w[.:]\w", bare))


def scripts(text: str) -> set[str]:
    """Return the scripts of a text's words, such as LATIN; single letters are ignored, because they may belong to a formula."""
    return {unicodedata.name(letter, "").split(" ")[0] for word in re.findall(r"[^\W\d_]{2,}", text) for letter in word}


def main_language(texts: list[str]) -> str | None:
    """Return the English name of the most probable language of the texts together, None if it is unclear."""
    words = [word for text in texts for word in telling_words(text)]
    found = _detector().detect_language_of(" ".join(words)) if len(words) >= _CLEAR_WORDS else None
    return found.name.capitalize() if found else None


def language_probability(words: list[str], language: str) -> float:
    """Return the probability that `telling_words` are of that language."""
    for value in _detector().compute_language_confidence_values(" ".join(words)):
        if value.language.name.capitalize() == language:
            return float(value.value)
    return 0.0
