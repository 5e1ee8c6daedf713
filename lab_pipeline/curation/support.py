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
from lab_pipeline.text.words import NUMBER_WORDS, affirmed, content_words, names, numbers

_LANGUAGE_FLOOR = 0.001
"""A text is in another language if the leaf's language has a lower probability than this. The floor is low because detectors
are seldom sure of short texts."""
_LANGUAGE_WORDS = 3
"""Apply the language test only to texts with at least this many words."""
_KNOWN_WORDS = 0.5
"""Apply the language test only to texts of whose words the leaf knows at most this share: detectors misread its jargon."""
_UNKNOWN_FLOOR = 1e-5
_UNKNOWN_LETTERS = 10
"""A text is also in another language if it has two or more words that the leaf does not know, with at least this many letters
together, and their probability in the leaf's language is below `_UNKNOWN_FLOOR`: 'gibt zwei' has 3e-6 in English, 'gluteus
maximus' 3e-5."""

_ELSEWHERE = 2
"""Of 482 questions that people asked about real documents, this rejects 15 % (with 1: 32 %, with 3: 10 %), of 1,500 questions
beside another sentence of their leaf 99.7 % (99.9 %, 97 %)."""

_WRITTEN_OUT = 2
"""Languages other than those of `NUMBER_WORDS` may write out a number of up to this many digits, which cannot be compared."""

_DISSIMILAR = 0.5
_DISSIMILAR_AND_UNKNOWN = 0.8
_UNKNOWN_QUESTION = 0.15
_ENOUGH_SEEDS = 3
"""A skill row is off topic if its similarity to the seeds is below `_DISSIMILAR` times `Profile.least_similarity`, or below
`_DISSIMILAR_AND_UNKNOWN` times if the leaf's texts have less than `_UNKNOWN_QUESTION` of the question's content words. Fewer
than `_ENOUGH_SEEDS` seeds show too little. `benchmarks/rules.py` measures what this loses and finds."""


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


def share(text: str, known: frozenset[str] | set[str], leaf: Profile) -> float:
    """Return the share of the text's content words whose stems are known, from 0 to 1; 1.0 for a text without content words."""
    words = leaf.stems(text)
    return sum(word in known for word in words) / len(words) if words else 1.0


def _given(text: str, leaf: Profile) -> set[str]:
    return set(leaf.stems(text)) | numbers(text, leaf.language)


def unsupported_fact(row: Row, leaf: Profile, rule: Rule) -> Reason:
    """Reject answers with a number or proper name that is neither in the source nor in the question; names may also be in the
    leaf's description.

    Rows without a source pass, and grounded skills may count and add up (`_totals`). German names are not checked, because all
    German nouns have capitals.
    """
    if not row["support"]:
        return None
    if row["kind"] == "grounded_skill" and "\n" in row["answer"]:  # tables, lists and code are made of other words
        return None
    source = f"{row['support']} {row['question']}"
    given = numbers(row["support"], leaf.language) | numbers(row["question"], leaf.language)
    unknown = {
        number
        for number in numbers(row["answer"], leaf.language) - given
        if leaf.language in (*NUMBER_WORDS, None) or len(number) > _WRITTEN_OUT
    }
    if row["kind"] == "grounded_skill":
        unknown -= _totals(given)
    if unknown:
        return f"the number {min(unknown)} is not in the source"
    if leaf.language != "German" and (found := [name for name in names(row["answer"]) if not name.isupper()]):
        known = set(re.findall(r"\w+", source.casefold())) | set(content_words(source)) | leaf.subject
        capitals = {name.casefold() for name in re.findall(r"[^\W\d_]{3,}", source) if name[0].isupper()}
        for name in found:
            for part in re.findall(r"[^\W\d]{2,}", name.casefold()):
                if part not in known and not set(content_words(part)) <= known and not _is_form(part, capitals):
                    return f"the name {name!r} is not in the source"
    return None


def _totals(given: frozenset[str]) -> set[str]:
    """Return what a grounded skill may compute: counts up to ten, the sum of all numbers, sums and differences of any two."""
    values = [float(number) for number in sorted(given) if re.fullmatch(r"\d+(?:\.\d+)?", number)][:50]
    results = {*range(11), sum(values), *(one + sign * other for one in values for other in values for sign in (1, -1))}
    return {f"{result:g}" for result in results}


def _is_form(name: str, capitals: set[str]) -> bool:
    """Tell whether a capitalised word of the source begins as the name does, for half of it: 'Chinese' beside 'China'."""
    stem = name[: max(3, (len(name) + 1) // 2)]
    return any(word.startswith(stem) for word in capitals)


def unsupported_answer(row: Row, leaf: Profile, rule: Rule) -> Reason:
    """Reject answers of two or more content words, too small a share of which is in their source or, in skills, their question.

    In knowledge, words of the question do not count; in skills, negations do not: 'None' may be said of any source.
    """
    answer = row["answer"] if row["kind"] == "knowledge" else affirmed(row["answer"])
    asked = set(leaf.stems(row["question"]))
    words = [word for word in leaf.stems(answer) if row["kind"] != "knowledge" or word not in asked]
    known = _given(row["support"] or "", leaf) | asked
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
            fits[text] += math.log(1 + leaf.sentence_count / len(leaf.sentences_with[stem]))
    best = max(sorted(fits), key=fits.__getitem__, default="")
    elsewhere = row["support"] in fits and fits[best] > _ELSEWHERE * fits[row["support"]]
    return f"the question fits {best!r} better" if elsewhere else None


def off_topic(row: Row, leaf: Profile, rule: Rule) -> Reason:
    """Reject knowledge rows with too small a share of content words from the leaf's texts, and skill rows that are too unlike
    the leaf's seeds (see `_UNKNOWN_QUESTION`)."""
    if row["kind"] == "knowledge":
        question = "" if row["context"] else row["question"]  # document instructions are worded by the flow
        known = share(f"{question} {row['answer']}", leaf.topics, leaf)
        return None if known >= (rule.minimum or 0) else f"{known:.0%} of the words are the leaf's"
    if len(leaf.seeds) < _ENOUGH_SEEDS:
        return None
    found = similarity(f"{row['question']} {row['answer']}", leaf.style)
    unknown = share(row["question"], leaf.topics, leaf) < _UNKNOWN_QUESTION
    if found >= leaf.least_similarity * (_DISSIMILAR_AND_UNKNOWN if unknown else _DISSIMILAR):
        return None
    return f"unlike the leaf's seeds: similarity {found:.3f}, of the least similar seed {leaf.least_similarity:.3f}"
