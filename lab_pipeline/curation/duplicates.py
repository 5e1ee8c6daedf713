"""Find rows of a leaf that ask the same as an earlier row of the leaf."""

from collections import Counter, defaultdict
from dataclasses import dataclass

from lab_pipeline.core.rows import JudgedRow
from lab_pipeline.text.leaks import SAME_QUESTION, differ
from lab_pipeline.text.words import content_words, exchanged, names, negated, normalised, numbers, question_words

SAME_ANSWER = 0.65
"""Minimum Jaccard similarity at which two questions with the same answer count as the same question."""


@dataclass(frozen=True)
class _Question:
    id: str
    text: str
    words: frozenset[str]
    in_names: frozenset[str]
    answer: frozenset[str] | str
    context: tuple[object, ...]
    """The question's numbers, its negation, and the row's context: questions that differ in these are never compared."""


class Duplicates:
    """Remembers rows, and finds the remembered row that a new row repeats.

    Questions are compared by the Jaccard similarity of their content words. With the same answer, they are the same if it is at
    least `SAME_ANSWER`. With different answers, they are the same if it is at least `SAME_QUESTION`, one question has all words
    of the other, and no words are exchanged ('from Harsk to Osmerel', 'from Osmerel to Harsk'). Never the same are
    questions that differ in a number, an arithmetic sign, a name, a negation, the kind of thing they ask for ('who', 'when') or
    their context.
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
        """Return the id of the earliest remembered row that this row repeats, None if it repeats none."""
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
