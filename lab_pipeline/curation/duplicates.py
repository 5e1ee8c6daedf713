"""Find rows of a leaf that ask the same as an earlier row of the leaf."""

import re
from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass

from lab_pipeline.core.rows import JudgedRow
from lab_pipeline.text.leaks import differ, jaccard
from lab_pipeline.text.questions import exchanged, question_words
from lab_pipeline.text.words import content_words, names, negated, normalised, numbers

SAME_ANSWER = 0.65
"""Minimum Jaccard similarity at which two questions with the same answer count as the same question."""
_SPECIFIC = re.compile(r"(?<!\w)['\"‘“`].+?['\"’”`](?!\w)|\bletters? \w\b", re.IGNORECASE)
"""Quoted words and named letters. Questions that differ in them are not the same: 'Spell "pear"', 'the letter i'."""


@dataclass(frozen=True)
class AskedQuestion:
    """What decides whether a row asks the same as another one."""

    id: str
    text: str
    words: frozenset[str]
    in_names: frozenset[str]
    answer: Hashable
    specific: Hashable
    """What the same questions share: context, numbers, negation, quoted words and letters."""


class Duplicates:
    """Remembers questions, and finds the remembered question that a new one repeats.

    With different answers, two questions are the same if they have the same content words, and none changed places ('from Harsk
    to Osmerel', 'from Osmerel to Harsk'). With the same answer, it is enough that the Jaccard similarity of their content words
    is `SAME_ANSWER`. Never the same are questions that differ in a number, an arithmetic sign, a name, a quoted word or letter,
    a negation, the kind of thing they ask for ('who', 'when'), or their context.
    """

    def __init__(self) -> None:
        self._with_words: dict[Hashable, list[AskedQuestion]] = defaultdict(list)
        self._with_answer: dict[Hashable, list[AskedQuestion]] = defaultdict(list)

    def add(self, question: AskedQuestion) -> None:
        self._with_words[question.words, question.specific].append(question)
        self._with_answer[question.answer, question.specific].append(question)

    def find(self, new: AskedQuestion) -> AskedQuestion | None:
        """Return the remembered question that a new one repeats, or None."""
        for known in self._with_words.get((new.words, new.specific), ()):
            if not differ(new.text, known.text) and not exchanged(new.text, known.text):
                return known
        for known in self._with_answer.get((new.answer, new.specific), ()):
            other_name = (new.words ^ known.words) & (new.in_names | known.in_names)
            if jaccard(new.words, known.words) >= SAME_ANSWER and not other_name and not differ(new.text, known.text):
                return known
        return None


def asked_question(row: JudgedRow) -> AskedQuestion:
    """Return the question of a complete row."""
    text, answer = row["question"], row["answer"]
    quoted = frozenset(found.group().casefold() for found in _SPECIFIC.finditer(text))
    specific = normalised(row["context"] or ""), numbers(text), negated(text), quoted
    in_names = frozenset(word for name in names(text) for word in content_words(name))
    return AskedQuestion(row["id"], text, question_words(text), in_names, content_words(answer) or normalised(answer), specific)
