"""Extract the words, numbers, names and negations of a text that rules and the leak detector compare.

The heuristics are simple and fast. Function words of other languages than English count as content words.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache, lru_cache

import Stemmer
from text_to_num import alpha2digit

SPACELESS = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u9fff"
"""Character ranges of scripts without spaces between words, in which a word takes about two characters."""

QUESTION_MARKS = "?？﹖؟⸮\u037e՞፧⁇⁈⁉‽⳺⳻꘏꛷"
"""Question marks of all scripts; \\u037e is the Greek one, which is mostly typed as a semicolon: see `is_asked`."""

STOP_WORDS = frozenset(
    "a an and are as at be been but by did do does for from had has have he her his how if in into is it its of on or she "
    "many much so than that the their them then there these they this to was were what when where which who whom whose why "
    "will with would you your i me my we our us not no yes also about can could should may might must name called".split()
)
NUMBER_WORDS = {
    "Dutch": "nl", "English": "en", "French": "fr", "German": "de", "Italian": "it", "Portuguese": "pt", "Spanish": "es"
}  # fmt: skip
"""The languages whose number words `numbers` reads, with their codes."""

_snowball, _SNOWBALL = cache(Stemmer.Stemmer), frozenset(Stemmer.algorithms())
_MARKS = "".join(sign for sign in map(chr, range(0x10000)) if unicodedata.category(sign)[0] == "M")
"""Accents and vowel signs, which are part of their word."""
_VOWEL_SIGNS = re.compile(r"[\u0591-\u05c7\u064b-\u0652]")
"""Hebrew and Arabic vowel signs, which most texts leave out."""
_WORD = re.compile(f"[{SPACELESS}]{{1,2}}|[^\\s{SPACELESS}]+")
_TOKEN = re.compile(rf"[{SPACELESS}]|\b[a-z](?:\+\+?|#)(?!\w)|\d+(?:[.,:]\d+)*|(?:[^\W\d_{SPACELESS}]|[{_MARKS}])+")
_AGENT = re.compile(r"(?<=\w\w\w)[eo]r$")
"""The endings of English agent nouns. Snowball's algorithm keeps them, so 'founder' and 'founded' share a stem only without."""
_CAPITALS = "".join(filter(str.isupper, map(chr, range(0x10000))))
_LETTER = r"\w\u0300-\u036f"
"""Characters of a word; an accent may be a separate character."""
_CAPITALISED = re.compile(rf"(?<![{_LETTER}])[{_CAPITALS}][{_LETTER}’'-]*[{_LETTER}]")
_SENTENCE_START = re.compile(rf"(?:^|[.!。{QUESTION_MARKS}:;\n•*])[\s\"'“”‘’(\[*#>•-]*$|[\"“]$")
_NEGATION = re.compile(
    r"(?i)\b(?:not|never|no|nobody|none|nothing|nowhere|neither|nor|without|cannot|hardly|scarcely)\b|n['’]t\b"
)
_GREEK = re.compile(r"[\u0370-\u03ff\u1f00-\u1fff]\W*;\s*$")
_ENUMERATION = re.compile(r"^\s*\d+[.)]\s", re.MULTILINE)
_DIGITS = re.compile(r"(?<![^\W\d_])\d+(?:[.,:'’\u00a0\u202f]\d+)*")
_NO_ZERO = re.compile(r"\b[Oo][Ss]?\b")
"""text2num 3.1.0 takes these for zero: 'an OS' becomes 'an 0'."""
_ORDER = re.compile(r"\b(?:1st|2nd)\b")
"""'First' is mostly an order, and 'second' may be a time."""
_COUNTED = {"dozen": "12", "decade": "10", "century": "100"}
"""English words that state a number, but that `text2num` leaves out."""


def all_words(text: str) -> list[str]:
    """Split a text into words at spaces, and scripts without them into pairs of characters; punctuation stays with its word."""
    return _WORD.findall(text)


@lru_cache(maxsize=4096)
def content_words(text: str, language: str | None = "English") -> tuple[str, ...]:
    """Return the lower-case stems of all words but `STOP_WORDS`, and all numbers, in the order of the text, with repeats.

    Stems are those of Snowball's algorithm for the language; languages that it does not know keep whole words.
    """
    return tuple(stem for chunk in text.split() for stem in stems(chunk, language))


@lru_cache(maxsize=1 << 16)
def stems(chunk: str, language: str | None = "English") -> tuple[str, ...]:
    """Return the `content_words` of a chunk between spaces; cached, because most texts repeat chunks of earlier texts."""
    bare = re.sub(r"['’]s\b", "", _VOWEL_SIGNS.sub("", chunk.casefold()))
    words = [word for word in _TOKEN.findall(bare) if word not in STOP_WORDS]
    algorithm = str(language).lower()
    found = _snowball(algorithm).stemWords(words) if algorithm in _SNOWBALL else words
    return tuple(_AGENT.sub("", stem) for stem in found) if language == "English" else tuple(found)


@lru_cache(maxsize=4096)
def numbers(text: str, language: str | None = "English") -> frozenset[str]:
    """Return the numbers of a text, in digits of any script or in words of a language of `NUMBER_WORDS`.

    The notation does not matter: '2,500' and '2.500' are both 2500, '2,5' is 2.5, '10:30' is 10.30. The number 1, 'first',
    'second' and the numbers before list items are left out, because they seldom count anything.
    """
    text = _ENUMERATION.sub("", text)
    if language in NUMBER_WORDS:
        text = _ORDER.sub(" ", alpha2digit(_NO_ZERO.sub(" ", text), NUMBER_WORDS[language], threshold=0))
    found = {plain_number(number) for number in _DIGITS.findall(text)}
    if language == "English":
        found |= {number for word, number in _COUNTED.items() if re.search(rf"\b{word}\b", text, re.IGNORECASE)}
    return frozenset(found - {"1"})


def plain_number(number: str) -> str:
    """Return a number in ASCII digits without thousands separators, with a point before its decimals; other text unchanged."""
    if not _DIGITS.fullmatch(number):
        return number
    *groups, last = re.split(r"\D", "".join(str(unicodedata.digit(sign)) if sign.isdigit() else sign for sign in number))
    whole = "".join(groups)
    thousands = len(last) == 3 and whole not in ("", "0")
    return whole + last if thousands or not groups else f"{whole}.{last}"


@lru_cache(maxsize=4096)
def names(text: str) -> tuple[str, ...]:
    """Return capitalised words without their possessive 's, but not those that begin a sentence, for they may be no names."""
    found = _CAPITALISED.finditer(text)
    inside = (word.group() for word in found if not _SENTENCE_START.search(text, max(0, word.start() - 8), word.start()))
    return tuple(re.sub(r"['’]s$", "", word) for word in inside)


def is_asked(text: str) -> bool:
    """Tell whether a text ends with a question mark of any script; in Greek, a semicolon is one."""
    end = text.rstrip()[-1:]
    return bool(end) and (end in QUESTION_MARKS or "՞" in text or (end == ";" and bool(_GREEK.search(text))))


def ends(text: str) -> bool:
    """Tell whether a text ends with a mark that may end a sentence, of any script, or with a closing mark or symbol."""
    return not (text.strip()[-1:].isalnum() or unicodedata.category(text.strip()[-1:] or ".") == "Mc")


def negated(text: str) -> bool:
    return bool(_NEGATION.search(text))


def normalised(text: str) -> str:
    """Return a text in folded case with single spaces, by which equal questions are recognised."""
    return " ".join(text.casefold().split())
