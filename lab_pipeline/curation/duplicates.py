"""Find rows of a leaf that ask the same as an earlier one."""

from collections import Counter, defaultdict
from dataclasses import dataclass

from lab_pipeline.core.rows import JudgedRow
from lab_pipeline.text.leaks import SAME_QUESTION, differ
from lab_pipeline.text.words import content_words, exchanged, names, negated, normalised, numbers, question_words

SAME_ANSWER = 0.65
"""Least similarity of two questions with the same answer that count as the same question."""


@dataclass(frozen=True)
class _Question:
    id: str
    text: str
    words: frozenset[str]
    in_names: frozenset[str]
    answer: frozenset[str] | str
    context: tuple[object, ...]
    """What makes similar questions different: numbers, negation, and the row's context."""


class Duplicates:
    """Remembers rows, and finds the one that a new row repeats.

    Two questions are the same if one holds nearly all words of the other (Jaccard similarity of content words) and none in
    their place, or if they are less similar but have the same answer. Questions that differ in a number, an arithmetic sign, a
    name, a negation, the kind of thing they ask for ('who', 'when') or their context are never the same; those with two words
    exchanged ('from Harsk to Osmerel') are so only if their answer is the same.
    """

    def __init__(self) -> None:
        self._questions: list[_Question] = []
        self._with_word: dict[tuple[object, ...], list[int]] = defaultdict(list)

    def add(self, row: JudgedRow) -> None:
        question = _question(row)
        for word in question.words:
            self._with_word[*question.context, word].append(len(self._questions))
        self._questions.append(question)

    def find(self, row: JudgedRow) -> str | None:
        """Return the id of the row that this one repeats."""
        new = _question(row)
        shared = Counter(index for word in new.words for index in self._with_word.get((*new.context, word), ()))
        for index, common in sorted(shared.items()):
            known = self._questions[index]
            similarity = common / (len(new.words) + len(known.words) - common)
            other_name = (new.words ^ known.words) & (new.in_names | known.in_names)
            if similarity < SAME_ANSWER or other_name or differ(new.text, known.text):
                continue
            nested = new.words <= known.words or known.words <= new.words
            if new.answer == known.answer or (similarity >= SAME_QUESTION and nested and not exchanged(new.text, known.text)):
                return known.id
        return None


def _question(row: JudgedRow) -> _Question:
    text = row["question"]
    in_names = frozenset(word for name in names(text) for word in content_words(name))
    answer = frozenset(content_words(row["answer"])) or normalised(row["answer"])
    context = frozenset(numbers(text)), negated(text), normalised(row["context"] or "")
    return _Question(row["id"], text, question_words(text), in_names, answer, context)
