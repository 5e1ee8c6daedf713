"""Compare what two questions ask for: their words, the kinds of thing, their calculations, and the order of their words."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import lru_cache
from itertools import pairwise

from lab_pipeline.text.words import QUESTION_MARKS, STOP_WORDS, plain_number, stems

_QUESTION_WORD = re.compile(
    r"\b(?:(?P<who>who|whom|whose)|(?P<when>when)|(?P<where>where)|(?P<why>why)|(?P<count>how (?:much|many))|(?P<what>what)|"
    r"(?P<how>how (?:to|do|does|did|is|are|was|were|has|have|had|can|could|will|would|should|may|might|must)))\b",
    re.IGNORECASE,
)
_WHAT_IT_DOES = re.compile(r"\bwhat (?:does|do|did)\b.*\bdo\b", re.IGNORECASE)
_WHAT_FOR_ANYTHING = re.compile(r"\b(?:call(?:ed)?|named?|like)\b", re.IGNORECASE)
_PLAIN_SIGNS, _OTHER_SIGNS = "+*%^=<>±≠≤≥≈", "/!&|~-"
_SIGNS = _PLAIN_SIGNS + _OTHER_SIGNS
_OPERAND = r"(?<!\d)(?<!\d[.,])\d+(?:[.,]\d+)*[a-z]?\b|\b[a-z]\b"
_STEP = re.compile(
    rf"(?P<left>{_OPERAND}|[)\]]) *(?P<sign>[{_SIGNS}]+) *(?=(?P<right>-?(?:{_OPERAND})|[(\[]))"
    rf"|(?<=[\w.,:;] )(?:[{_OTHER_SIGNS}]*[{_PLAIN_SIGNS}][{_SIGNS}]*|&&|\|\|)(?=[\s.,:;{QUESTION_MARKS}]|$)"
    rf"|(?<=[\"'`“‘])[{_SIGNS}]+(?=[\"'`”’])"
)
"""A sign between operands, a sign by itself in a line (unless it may be a dash or similar), or a sign in quotation marks."""
_ONE_SIGN = str.maketrans("×·÷–—−", "**/---")


_POLITE = (
    "answer describe exactly explain give know let like please question quick say state tell want wonder wondering".split()
)
_FRAMING = frozenset(stem for word in _POLITE for stem in stems(word))
"""Stems of words that make a question more polite or longer, but do not change what it asks."""


def question_words(text: str) -> frozenset[str]:
    """Return the stems of a question's content words without polite ones such as 'please'; if none is left, all its words."""
    stems = frozenset(stem for chunk in text.split() for stem in question_stems(chunk))
    return stems or frozenset(re.findall(r"\w+", text.casefold()))


@lru_cache(maxsize=1 << 16)
def question_stems(chunk: str) -> tuple[str, ...]:
    """Return the stems that a chunk between spaces adds to `question_words`; there may be none."""
    return tuple(stem for stem in stems(chunk) if stem not in _FRAMING)


@lru_cache(4096)
def calculation(text: str) -> tuple[str, ...]:
    """Return a text's signs of arithmetic, logic and code with their operands, in order; empty without signs.

    If all signs are + or all are *, return the sign once and then the operands sorted, because their order does not matter.
    """
    steps = [
        (plain_number(step["left"] or ""), step["sign"] or step.group(), plain_number(step["right"] or ""))
        for step in _STEP.finditer(text.casefold().translate(_ONE_SIGN))
    ]
    if {sign for _, sign, _ in steps} in ({"+"}, {"*"}):
        return steps[0][1], *sorted(operand for left, _, right in steps for operand in (left, right))
    return tuple(each for step in steps for each in step)


@lru_cache(4096)
def asked_kinds(text: str) -> frozenset[str]:
    """Return the kinds of thing that a text's English question words ask for; empty if they leave the kind open.

    The kinds are who, when, where, why, count, what, how and, for 'What does it do?', deed. 'What' gives both what and count,
    because it may ask for a number. Questions such as 'Which ...', 'What ... called', 'What ... like' and 'How old ...' give no
    kind: their question word alone does not tell what is asked for.
    """
    kinds = {found.lastgroup or "" for found in _QUESTION_WORD.finditer(text)}
    if _WHAT_IT_DOES.search(text):
        kinds = kinds - {"what"} | {"deed"}
    elif "what" in kinds:
        kinds = kinds - {"what"} if _WHAT_FOR_ANYTHING.search(text) else kinds | {"count"}
    return frozenset(kinds)


def exchanged(one: str, other: str) -> set[str]:
    """Return the content words that changed places between two texts, and the words that stand before them.

    'From Harsk to Osmerel' and 'from Osmerel to Harsk' give all four words. Words joined by 'and' or 'or' do not count, nor do
    words that moved without others taking their place.
    """
    old, new = _followers(one), _followers(other)
    new_places = defaultdict(list)
    for before, word in new - old:
        new_places[word].append(before)
    moves = {(before, after): word for before, word in old - new for after in new_places[word]}
    return {
        each
        for (before, after), word in moves.items()
        if (after, before) in moves and not {before, after} & {"and", "or"}
        for each in (before, word)
    }


def _followers(text: str) -> set[tuple[str, str]]:
    """Return each content word as (word before it, content word); articles are skipped."""
    words = [word for word in re.findall(r"\w+", text.casefold()) if word not in ("a", "an", "the")]
    return {(mark, word) for mark, word in pairwise(["", *words]) if word not in STOP_WORDS}
