"""Check by words alone whether a row is in its leaf's language, supported by its source, and belongs to its leaf.

Judges find faults that words cannot show, such as a wrong span of the right passage.
"""

import math
import re
from collections import defaultdict
from functools import lru_cache

from lab_pipeline.curation.profile import Profile, Reason, Row, similarity
from lab_pipeline.flows.flow import Rule
from lab_pipeline.text.language import languages, scripts, telling_words
from lab_pipeline.text.words import NUMBER_WORDS, numbers

_LANGUAGE_FLOOR = 0.001
"""Call a text foreign if the leaf's language is less probable. It is so low because detectors are unsure of short texts."""
_LANGUAGE_WORDS, _KNOWN_WORDS = 3, 0.5
"""Judge only texts of at least that many words, of which the leaf knows at most this share: detectors misread its jargon."""
_UNKNOWN_FLOOR, _UNKNOWN_LETTERS = 1e-5, 10
"""A text is also in another language if it has two or more words that the leaf does not know, with at least this many letters
together, and their probability in the leaf's language is below `_UNKNOWN_FLOOR`: 'gibt zwei' has 3e-6 in English, 'gluteus
maximus' 3e-5."""

_ELSEWHERE = 2
"""Of 482 questions that people asked about real documents, this rejects 15 % (with 1: 32 %, with 3: 10 %), of 1,500 questions
beside another sentence of their leaf 99.7 % (99.9 %, 97 %)."""

_WRITTEN_OUT = 2
"""Languages other than those of `NUMBER_WORDS` may write out a number of up to this many digits, which cannot be compared."""

_DISSIMILAR, _ENOUGH_SEEDS = 0.7, 3
"""A skill row is off topic if its similarity to the seeds is below `_DISSIMILAR` times `Profile.least_similarity`. Fewer than
`_ENOUGH_SEEDS` seeds show too little. `benchmarks/rules.py` measures what this loses and finds."""


@lru_cache(1 << 16)
def _parts(word: str) -> list[str]:
    return re.findall(r"\w+", word.casefold())


def other_language(row: Row, leaf: Profile, rule: Rule) -> Reason:
    """Reject rows with letters of a script that the leaf lacks, and rows whose question, answer, or both together are in
    another language than the leaf's. If the leaf's language is unclear, only scripts count."""
    both = f"{row['question']} {row['answer']}"
    if leaf.scripts and (foreign := scripts(both) - leaf.scripts):
        return f"{min(foreign).lower()} letters, which the leaf does not use"
    if not leaf.language:
        return None
    given = {part for word in (row["support"] or "").split() for part in _parts(word)}
    new = {part for word in both.split() for part in _parts(word) if part not in leaf.words and part not in given}
    if sum(part.isalpha() for part in new) < 2 and both.isascii():  # one word does not tell a language
        return None
    question, answer = telling_words(row["question"]), telling_words(row["answer"])
    for words in (question, answer, question + answer):
        unknown = [word for word in words if not all(part in given or part in leaf.words for part in _parts(word))]
        mostly_unknown = len(words) >= _LANGUAGE_WORDS and len(unknown) > _KNOWN_WORDS * len(words)
        enough_unknown = len(unknown) > 1 and len("".join(unknown)) >= _UNKNOWN_LETTERS
        if (mostly_unknown and languages(" ".join(words)).get(leaf.language, 0) < _LANGUAGE_FLOOR) or (
            enough_unknown and languages(" ".join(unknown)).get(leaf.language, 0) < _UNKNOWN_FLOOR
        ):
            return f"not {leaf.language}: {' '.join(unknown[:5])}"
    return None


def unsupported_number(row: Row, leaf: Profile, rule: Rule) -> Reason:
    """Reject answers with a number that is neither in the source nor in the question. Rows without a source pass."""
    if not row["support"]:
        return None
    given = numbers(row["support"], leaf.language) | numbers(row["question"], leaf.language)
    readable = leaf.language in (*NUMBER_WORDS, None)
    unknown = [each for each in numbers(row["answer"], leaf.language) - given if readable or len(each) > _WRITTEN_OUT]
    return f"the number {min(unknown)} is not in the source" if unknown else None


def unsupported_answer(row: Row, leaf: Profile, rule: Rule) -> Reason:
    """Reject answers of two or more content words, too small a share of which is in their source or, in skills, their question.

    In knowledge, words of the question do not count.
    """
    asked = set(leaf.stems(row["question"]))
    words = [word for word in leaf.stems(row["answer"]) if row["kind"] != "knowledge" or word not in asked]
    known = {*leaf.stems(row["support"] or ""), *numbers(row["support"] or "", leaf.language), *asked}
    found = sum(word in known for word in words) / len(words) if len(words) > 1 else 1.0
    return None if found >= (rule.minimum or 0) else f"{found:.0%} of the answer's words are supported"


def asked_elsewhere(row: Row, leaf: Profile, rule: Rule) -> Reason:
    """Reject questions that fit another sentence of the leaf's documents more than twice as well (`_ELSEWHERE`) as the sentence
    that answers them, share no word with it, or say all of its words.

    This is round-trip consistency (Alberti et al. 2019, Synthetic QA Corpora Generation with Roundtrip Consistency), by words
    in place of a reader model. A sentence fits by the words that it shares with the question, each weighing the more, the fewer
    sentences have it. Only rows whose answer is the sentence itself are compared.
    """
    if not row["support"] or row["answer"] != row["support"]:
        return None
    asked, sentence = set(leaf.stems(row["question"])), set(leaf.stems(row["support"]))
    if not asked & sentence:
        return "the question shares no word with its sentence"
    if sentence <= asked:
        return "the question says all that its sentence says"
    fits: dict[str, float] = defaultdict(float)
    for stem in sorted(asked & leaf.sentences_with.keys()):  # the order of a sum may decide in its last digit
        for text in leaf.sentences_with[stem]:
            fits[text] += math.log(1 + len(leaf.sentences) / len(leaf.sentences_with[stem]))
    best = max(sorted(fits), key=fits.__getitem__, default="")
    elsewhere = row["support"] in fits and fits[best] > _ELSEWHERE * fits[row["support"]]
    return f"the question fits {best!r} better" if elsewhere else None


def off_topic(row: Row, leaf: Profile, rule: Rule) -> Reason:
    """Reject knowledge rows with too small a share of content words from the leaf's texts, and skill rows that are too unlike
    the leaf's seeds (see `_DISSIMILAR`)."""
    if row["kind"] == "knowledge":
        question = "" if row["context"] else row["question"]  # document instructions are worded by the flow
        words = leaf.stems(f"{question} {row['answer']}")
        known = sum(word in leaf.topics for word in words) / len(words) if words else 1.0
        return None if known >= (rule.minimum or 0) else f"{known:.0%} of the words are the leaf's"
    found = similarity(f"{row['question']} {row['answer']}", leaf.style)
    if len(leaf.seeds) < _ENOUGH_SEEDS or found >= _DISSIMILAR * leaf.least_similarity:
        return None
    return f"unlike the leaf's seeds: similarity {found:.3f}, of the least similar seed {leaf.least_similarity:.3f}"
