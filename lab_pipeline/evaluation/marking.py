"""Mark an answer that a model gave in its own words, by rule, so that people see at a glance what is right and what is wrong.

The marks are for readers alone; no decision looks at them. An answer has what the reference says beyond the question, or lacks
it: names and numbers or, without these, other telling words. Long references, such as a letter or a summary, have no such few
words, and are not marked.
"""

from itertools import pairwise
from typing import Literal, NamedTuple

from lab_pipeline.text.words import content_words, negated, numbers, stems

_MOST_WORDS = 5


class Mark(NamedTuple):
    """What a rule says of an answer, and why."""

    kind: Literal["right", "partly", "wrong", "unmarked"]
    why: str


def mark_answer(question: str, reference: str, answer: str) -> Mark:
    """Compare an answer with the telling words of the reference: the names and numbers, else the words, not in the question."""
    asked = set(content_words(question))
    telling = {
        stem: chunk.strip(".,;:!?\"'“”‘’()") for chunk in reference.split() for stem in stems(chunk) if stem not in asked
    }
    if not telling or len(telling) > _MOST_WORDS:
        return Mark("unmarked", "compare it with the right answer yourself")
    words = [chunk.lstrip("(\"'“‘") for chunk in reference.split()]
    named = {
        stem
        for place, (word, after) in enumerate(pairwise([*words, ""]))
        if word[:1].isupper() and (place or after[:1].isupper())
        for stem in stems(word)
    }
    facts = {stem: word for stem, word in telling.items() if stem in named or numbers(word)}
    telling = facts or telling  # 'It bears the name Orra' is right by the name alone
    said, figures = set(content_words(answer)), numbers(answer)
    lacking = [word for stem, word in telling.items() if stem not in said and not (numbers(word) and numbers(word) <= figures)]
    if lacking:
        return Mark("wrong" if len(lacking) == len(telling) else "partly", f"lacks {', '.join(dict.fromkeys(lacking))}")
    if negated(answer) != negated(reference):
        return Mark("wrong", "says the opposite")
    return Mark("right", f"says {', '.join(dict.fromkeys(telling.values()))}")
