"""Rows of a leaf that ask the same as an earlier one."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from lab_pipeline.curation.profile import Row
from lab_pipeline.text.leaks import SAME_QUESTION, differ
from lab_pipeline.text.words import content_words, exchanged, names, negated, normalised, numbers, question_words

SAME_ANSWER = 0.65
"""Similarity from which two questions with the same answer count as the same one."""


class Duplicates:
    """Remembers rows, and finds the one that a new row repeats.

    Two questions are the same when one holds nearly the words of the other (Jaccard similarity of content words) and nothing
    in their place; or when they are less alike but have one answer. Questions that differ in a number, a sign of arithmetic, a
    name, a negation, the kind of thing they ask for ('who', 'when') or their context are never the same, and where two words
    changed places ('from Harsk to Osmerel'), only one answer makes them so.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[str, str, frozenset[str], frozenset[str], Any]] = []
        self._holding: dict[Any, list[int]] = defaultdict(list)

    def add(self, row: Row) -> None:
        apart, words = _apart(row), question_words(row["question"])
        for word in words:
            self._holding[apart, word].append(len(self._rows))
        self._rows.append((row["id"], row["question"], words, _named(row), _answer(row)))

    def find(self, row: Row) -> str | None:
        """Id of the row that this one repeats."""
        apart, words, named, answer = _apart(row), question_words(row["question"]), _named(row), _answer(row)
        shared = Counter(index for word in words for index in self._holding.get((apart, word), ()))
        for index, common in sorted(shared.items()):
            identity, asked, known, known_named, known_answer = self._rows[index]
            alike = common / (len(words) + len(known) - common)
            added = words <= known or known <= words
            if alike < SAME_ANSWER or (words ^ known) & (named | known_named) or differ(row["question"], asked):
                continue
            if answer == known_answer or (alike >= SAME_QUESTION and added and not exchanged(row["question"], asked)):
                return identity
        return None


def _apart(row: Row) -> Any:
    """What makes similar questions different ones."""
    asked = row["question"]
    return frozenset(numbers(asked)), negated(asked), normalised(row["context"] or "")


def _named(row: Row) -> frozenset[str]:
    return frozenset(word for name in names(row["question"]) for word in content_words(name))


def _answer(row: Row) -> Any:
    return frozenset(content_words(row["answer"])) or normalised(row["answer"])
