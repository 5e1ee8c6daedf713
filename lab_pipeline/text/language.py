"""Detect the language of texts, even of texts as short as a question, or of a leaf full of invented names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

from lab_pipeline.text.words import all_words, names

_CLEAR_WORDS = 30
"""Minimum number of `telling_words` from which `main_language` names a language."""
_CLEAR = 0.8
"""Probability from which `main_language` names a language."""
_MANY_WORDS = 150
"""Number of words that tell a language well enough."""

_RARE = "Esperanto Ganda Latin Maori Shona Somali Sotho Tagalog Tsonga Tswana Xhosa Yoruba Zulu".split()
"""Languages that are never named: lists, calendars, camel case and invented words are taken for them more often than they are
written."""


@cache
def _detector() -> Any:
    from lingua import Language, LanguageDetectorBuilder

    rare = (getattr(Language, name.upper()) for name in _RARE)
    return LanguageDetectorBuilder.from_all_languages_without(*rare).with_low_accuracy_mode().build()


def telling_words(text: str) -> list[str]:
    """Return the words that tell a language: all but code, URLs, figures, letters, quoted words and possible names."""
    prose = re.sub(r"```.*?(?:```|$)|`[^`]*`|https?://\S+", " ", text, flags=re.DOTALL)
    named = set(names(prose))
    return [word for chunk in prose.split() if not _is_neutral(chunk, named) for word in all_words(chunk)]


def _is_neutral(word: str, named: set[str]) -> bool:
    bare, neutral = _bare(word)
    return neutral or (bare[:1].isupper() and (bare in named or bare.isupper()))


@lru_cache(1 << 16)
def _bare(word: str) -> tuple[str, bool]:
    """Return a word without the marks around it, and whether it tells no language.

    Code, symbols, figures, single letters and quoted words tell none.
    """
    bare = re.sub(r"^\W+|\W+$|['’]s$", "", word)
    quoted = word[:1] in "'\"‘“«`" and len(bare) < len(word) - 1
    symbols = bool(re.search(r"[\u2190-\u2bff]", word))  # an emoticon is no word of the script that its marks are from
    letter = len(bare) == 1 and bare.isascii()
    return bare, not bare or quoted or symbols or letter or bool(re.search(r"[\d_/\\=(){}\[\]<>]|\w[.:]\w|[a-z][A-Z]", bare))


@cache
def _script(letter: str) -> str:
    return unicodedata.name(letter, "").split(" ")[0]


def scripts(text: str) -> set[str]:
    """Return the scripts of a text's words by Unicode name, such as LATIN. Single letters and words of two scripts are left
    out, since they may be formulas."""
    if text.isascii():
        return {"LATIN"} if re.search("[a-zA-Z]{2}", text) else set()
    words = ({_script(letter) for letter in word} for word in re.findall(r"[^\W\d_]{2,}", text))
    return {script for found in words if len(found) == 1 for script in found}


def main_language(texts: list[str]) -> str | None:
    """Return the English name of the most probable language of all texts together; None if they have too few words to tell, or
    no language is clearly the most probable."""
    words = [word for text in texts for word in telling_words(text)]
    if len(words) < _CLEAR_WORDS:
        return None
    likeliest, probability = max(languages(" ".join(words[:_MANY_WORDS])).items(), key=lambda found: found[1])
    return likeliest if probability >= _CLEAR else None


@lru_cache(4096)
def languages(text: str) -> Mapping[str, float]:
    """Return the probability, from 0 to 1, of each language that a text may be in, by its English name."""
    found = _detector().compute_language_confidence_values(text)
    return {value.language.name.capitalize(): float(value.value) for value in found}
