"""Find rows of a leaf that ask the same as an earlier row of the leaf."""

import re
from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache

from lab_pipeline.core.rows import JudgedRow
from lab_pipeline.text.leaks import differ, jaccard
from lab_pipeline.text.questions import exchanged, question_words
from lab_pipeline.text.words import content_words, names, negated, normalised, numbers

SAME_ANSWER = 0.65
"""Minimum Jaccard similarity at which two questions with the same answer count as the same question."""
_SPECIFIC = re.compile(r"(?<!\w)['\"‘“`].+?['\"’”`](?!\w)|\bletters? \w\b", re.IGNORECASE)
"""Quoted words and named letters. Questions that differ in them are not the same: 'Spell "pear"', 'the letter i'."""


@dataclass(frozen=True)
class _Question:
    id: str
    text: str
    words: frozenset[str]
    in_names: frozenset[str]


class Duplicates:
    """Remembers rows, and finds the remembered row that a new row repeats.

    With different answers, two questions are the same if they have the same content words, and none changed places ('from Harsk
    to Osmerel', 'from Osmerel to Harsk'). With the same answer, it is enough that the Jaccard similarity of their content words
    is `SAME_ANSWER`. Never the same are questions that differ in a number, an arithmetic sign, a name, a quoted word or letter,
    a negation, the kind of thing they ask for ('who', 'when'), or their context.
    """

    def __init__(self) -> None:
        self._with_words: dict[Hashable, list[_Question]] = defaultdict(list)
        self._with_answer: dict[Hashable, list[_Question]] = defaultdict(list)

    def add(self, row: JudgedRow) -> None:
        worded, answered, question = _keys(row)
        self._with_words[worded].append(question)
        self._with_answer[answered].append(question)

    def find(self, row: JudgedRow) -> str | None:
        """Return the id of the remembered row that this row repeats, None if there is none."""
        worded, answered, new = _keys(row)
        for known in self._with_words.get(worded, ()):
            if not differ(new.text, known.text) and not exchanged(new.text, known.text):
                return known.id
        for known in self._with_answer.get(answered, ()):
            other_name = (new.words ^ known.words) & (new.in_names | known.in_names)
            if jaccard(new.words, known.words) >= SAME_ANSWER and not other_name and not differ(new.text, known.text):
                return known.id
        return None


def _keys(row: JudgedRow) -> tuple[Hashable, Hashable, _Question]:
    return _keys_of(row["id"], normalised(row["context"] or ""), row["question"], row["answer"])


@lru_cache(8)
def _keys_of(row_id: str, context: str, text: str, answer_text: str) -> tuple[Hashable, Hashable, _Question]:
    """Return the key that a row shares with rows of the same words, the key of the same answer, and the row's question."""
    specific = frozenset(found.group().casefold() for found in _SPECIFIC.finditer(text))
    same = context, frozenset(numbers(text)), negated(text), specific
    words = question_words(text)
    answer = tuple(content_words(answer_text)) or normalised(answer_text)
    in_names = frozenset(word for name in names(text) for word in content_words(name))
    return (words, *same), (answer, *same), _Question(row_id, text, words, in_names)
