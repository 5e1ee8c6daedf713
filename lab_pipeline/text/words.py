"""Words, numbers, names, negations and formulas of a text, as rules and the leak detector compare them.

Plain and quick, for texts of any leaf. Numbers in words and function words are known in English only; elsewhere they count as
content words.
"""

from __future__ import annotations

import re
from collections import defaultdict
from functools import lru_cache
from itertools import pairwise

SPACELESS = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u9fff"
"""Scripts without spaces between words, in which each character counts as one."""

QUESTION_MARKS = "?？﹖؟⸮\u037e՞፧⁇⁈⁉‽⳺⳻꘏꛷"
"""Of all scripts; \\u037e is the Greek one, which is mostly typed as a semicolon: see `is_asked`."""

STOP_WORDS = frozenset(
    "a an and are as at be been but by did do does for from had has have he her his how if in into is it its of on or she "
    "many much so than that the their them then there these they this to was were what when where which who whom whose why "
    "will with would you your i me my we our us not no yes also about can could should may might must name called".split()
)
_WORD = re.compile(f"[{SPACELESS}]|[^\\s{SPACELESS}]+")
_TOKEN = re.compile(rf"[{SPACELESS}]|\b[a-z](?:\+\+?|#)(?!\w)|\d+(?:[.,:]\d+)*|[^\W\d_{SPACELESS}]+")
_ENDING = re.compile(r"(?<=\w\w\w)(?:(?:ing|ed|er|or|e)s?|s)$")
_DOUBLED = re.compile(r"(?<=\w\w([bdgmnprt]))\1$")
"""As in 'slipping'."""
_CAPITALS = "".join(filter(str.isupper, map(chr, range(0x10000))))
_LETTER = r"\w\u0300-\u036f"
"""Of a word; an accent may be a character of its own."""
_CAPITALISED = re.compile(rf"(?<![{_LETTER}])[{_CAPITALS}][{_LETTER}’'-]*[{_LETTER}]")
_SENTENCE_START = re.compile(rf"(?:^|[.!。{QUESTION_MARKS}:;\n•*])[\s\"'“”‘’(\[*#>•-]*$|[\"“]$")
_SUBJECT = re.compile(
    rf"(?:['’]s\b)?,?\s+(?:[{_CAPITALS}]|(?:and|or|is|was|are|were|has|had|have|will|would|must|can|could|may|should|does|"
    r"did|\w{3,}ed)\b)"
)
_NEGATION = re.compile(
    r"\b(?:not|never|no|nobody|none|nothing|nowhere|neither|nor|without|cannot|hardly|scarcely)\b|n['’]t\b", re.IGNORECASE
)
_GREEK = re.compile(r"[\u0370-\u03ff\u1f00-\u1fff]\W*;\s*$")
_ENUMERATION = re.compile(r"^\s*\d+[.)]\s", re.MULTILINE)
_QUESTION_WORD = re.compile(
    r"\b(?:(?P<who>who|whom|whose)|(?P<when>when)|(?P<where>where)|(?P<why>why)|(?P<count>how (?:much|many))|(?P<what>what)|"
    r"(?P<how>how (?:to|do|does|did|is|are|was|were|has|have|had|can|could|will|would|should|may|might|must)))\b",
    re.IGNORECASE,
)
_WHAT_FOR_ANYTHING = re.compile(r"\b(?:call(?:ed)?|named?|like)\b", re.IGNORECASE)
_PLAIN_SIGNS, _OTHER_SIGNS = "+*%^=<>±≠≤≥≈", "/!&|~-"
_SIGNS = _PLAIN_SIGNS + _OTHER_SIGNS
_OPERAND = r"(?<!\d)(?<!\d[.,])\d+(?:[.,]\d+)*[a-z]?\b|\b[a-z]\b"
_STEP = re.compile(
    rf"(?P<left>{_OPERAND}|[)\]]) *(?P<sign>[{_SIGNS}]+) *(?=(?P<right>-?(?:{_OPERAND})|[(\[]))"
    rf"|(?<=[\w.,:;] )(?:[{_OTHER_SIGNS}]*[{_PLAIN_SIGNS}][{_SIGNS}]*|&&|\|\|)(?=[\s.,:;{QUESTION_MARKS}]|$)"
    rf"|(?<=[\"'`“‘])[{_SIGNS}]+(?=[\"'`”’])"
)
"""A sign between operands; one that stands alone inside a line, unless it may be a dash or the like; one in quotation marks."""
_ONE_SIGN = str.maketrans("×·÷–—−", "**/---")
_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_SMALL = {word: value for value, word in enumerate(_UNITS)} | {word: 20 + 10 * index for index, word in enumerate(_TENS)}
_ORDINALS = {"third": 3, "fifth": 5, "eighth": 8, "ninth": 9, "twelfth": 12} | {
    word.replace("y", "ie") + "th": value for word, value in _SMALL.items() if value > 3
}
_SCALES = {"thousand": 1000, "million": 1_000_000, "billion": 1_000_000_000}
_NUMBER_WORDS = _SMALL | _ORDINALS | {"hundred": 100} | _SCALES
_AFTER_TENS = {"first": 1, "second": 2}
"""Alone they say which one, or how long."""
_NUMBER = rf"(?:(?:{'|'.join(_TENS)})-(?:{'|'.join(_AFTER_TENS)})|{'|'.join(_NUMBER_WORDS)})"
_NUMBER_RUN = re.compile(rf"\b{_NUMBER}(?:(?:[\s-]|\sand\s){_NUMBER})*\b", re.IGNORECASE)
_NEVER_NAMES = STOP_WORDS | frozenset(
    "above across after against all along although among another any anyone around because before behind below beside between "
    "beyond both despite during each every everybody everyone finally first inside many most near nobody none nothing once "
    "other others outside over since some somebody someone through under unless until while within without".split()
)


def all_words(text: str) -> list[str]:
    """Words as they stand, split at spaces; in scripts without spaces, characters."""
    return _WORD.findall(text)


def content_words(text: str) -> list[str]:
    """Lower-case stems of the words that carry content, numbers included."""
    return [stem for part in text.split() for stem in _stems(part)]


@lru_cache(maxsize=1 << 16)
def _stems(part: str) -> tuple[str, ...]:
    """`content_words` of a text without spaces: texts have few parts that none had before, so this is where time is saved."""
    words = _TOKEN.findall(re.sub(r"['’]s\b", "", part.casefold()))
    return tuple(_stem(word) for word in words if word not in STOP_WORDS)


def _stem(word: str) -> str:
    """The word without a common English ending, the same for all forms of most words; no word of a dictionary."""
    stem = _ENDING.sub("", word)
    return _DOUBLED.sub("", stem) if stem != word else word


_FRAMING = frozenset(
    map(
        _stem,
        "answer describe exactly explain give know let like please question quick say state tell want wonder wondering".split(),
    )
)
"""Stems of the words by which the same question is put more politely or at greater length."""


def question_words(text: str) -> frozenset[str]:
    """Stems of a question's content words, by which questions are compared."""
    stems = frozenset(stem for part in text.split() for stem in question_stems(part))
    return stems or frozenset(re.findall(r"\w+", text.casefold()))


@lru_cache(maxsize=1 << 16)
def question_stems(part: str) -> tuple[str, ...]:
    """`question_words` of a part between spaces; there may be none."""
    return tuple(stem for stem in _stems(part) if stem not in _FRAMING)


def numbers(text: str) -> set[str]:
    """Numbers of a text as digits, whether written so or in English words, without thousands separators.

    'One' and the numbers of list items are left out: they seldom count anything.
    """
    text = _ENUMERATION.sub("", text)
    digits = {_plain(number) for number in re.findall(r"\d+(?:[.,:]\d+)*", text)}
    return (digits | {_value(run.group()) for run in _NUMBER_RUN.finditer(text)}) - {"1"}


def _value(words: str) -> str:
    total = group = 0
    for word in re.findall(r"[a-z]+", words.casefold()):
        if word in _SCALES:
            total, group = total + (group or 1) * _SCALES[word], 0
        elif word == "hundred":
            group = (group or 1) * 100
        else:
            group += (_NUMBER_WORDS | _AFTER_TENS).get(word, 0)
    return str(total + group)


def _plain(number: str) -> str:
    return re.sub(r",(?=\d{3}\b)", "", number).replace(",", ".")


@lru_cache(4096)
def calculation(text: str) -> tuple[str, ...]:
    """Signs of arithmetic, logic and code in their order, with what they stand between; empty for text without any.

    The operands of sums alone, or of products alone, are given sorted: they may change places.
    """
    steps = [
        (_plain(step["left"] or ""), step["sign"] or step.group(), _plain(step["right"] or ""))
        for step in _STEP.finditer(text.casefold().translate(_ONE_SIGN))
    ]
    if {sign for _, sign, _ in steps} in ({"+"}, {"*"}):
        return steps[0][1], *sorted(operand for left, _, right in steps for operand in (left, right))
    return tuple(part for step in steps for part in step)


@lru_cache(4096)
def asked_kinds(text: str) -> frozenset[str]:
    """Kinds of thing a text asks for, by all its English question words; empty if that is left open.

    Left out are 'which', 'what ... called' and 'how old': another word says what they ask for. 'What' may ask for a number.
    """
    kinds = {found.lastgroup or "" for found in _QUESTION_WORD.finditer(text)}
    if "what" in kinds:
        kinds = kinds - {"what"} if _WHAT_FOR_ANYTHING.search(text) else kinds | {"count"}
    return frozenset(kinds)


def exchanged(one: str, other: str) -> set[str]:
    """Content words that changed places from one text to the other, with the words before those places; empty if none did.

    So 'from Harsk to Osmerel' and 'from Osmerel to Harsk', but not what 'and' or 'or' joins, nor parts that only moved.
    """
    old, new = _followers(one), _followers(other)
    marks = defaultdict(list)
    for mark, word in new - old:
        marks[word].append(mark)
    moves = {(mark, now): word for mark, word in old - new for now in marks[word]}
    return {
        part
        for (mark, now), word in moves.items()
        if (now, mark) in moves and not {mark, now} & {"and", "or"}
        for part in (mark, word)
    }


def _followers(text: str) -> set[tuple[str, str]]:
    """Each content word after the word that stands before it, articles left out."""
    words = [word for word in re.findall(r"\w+", text.casefold()) if word not in ("a", "an", "the")]
    return {(mark, word) for mark, word in pairwise(["", *words]) if word not in STOP_WORDS}


def names(text: str) -> list[str]:
    """Capitalised words that are proper names by their place: inside a sentence, or at its start as its subject."""
    found = []
    for word in _CAPITALISED.finditer(text):
        starts = _SENTENCE_START.search(text, max(0, word.start() - 8), word.start()) or not text[: word.start()].strip()
        named = not starts or (_SUBJECT.match(text, word.end()) and not word.group().endswith(("ing", "ly")))
        if named and word.group().casefold() not in _NEVER_NAMES:
            found.append(re.sub(r"['’]s$", "", word.group()))
    return found


def is_asked(text: str) -> bool:
    """Whether a text ends as a question, in whatever script; a semicolon ends one in Greek."""
    end = text.rstrip()[-1:]
    return bool(end) and (end in QUESTION_MARKS or "՞" in text or (end == ";" and bool(_GREEK.search(text))))


def negated(text: str) -> bool:
    return bool(_NEGATION.search(text))


def affirmed(text: str) -> str:
    """The text without its negations."""
    return _NEGATION.sub("", text)


def normalised(text: str) -> str:
    """Text with case and runs of white space evened out, for comparing questions."""
    return " ".join(text.casefold().split())
