"""Rules on whether a row rests on its source and belongs to its leaf, by words alone.

What words cannot tell, such as a wrong span of the right passage, is for judges and for `lab_pipeline.curation.grounding`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from lab_pipeline.curation.profile import Profile, Reason, Row, similarity
from lab_pipeline.flows.flow import Rules
from lab_pipeline.text.sentences import sentences
from lab_pipeline.text.words import affirmed, content_words, names, negated, numbers

_RESTATED = 0.8
"""A text with this share of another's content words tells the same, and must agree with it in negation."""

_RETOLD = 3
"""An answer with this many content words of a sentence, and one other, retells it."""

_UNLIKE = 0.7
_UNLIKE_AND_STRANGE = 1.0
_STRANGE_QUESTION = 0.15
"""A skill row is off topic when its similarity to the seeds is below 0.7 of that of the least similar seed, or below all of it
where next to no word of its question is the leaf's. With four seeds drawn from each of six skill leaves, 4 of 160 other seeds
are lost, and 87 % of other leaves' rows and general questions found; with five, 1 of 120 and 85 %."""


def support(text: str, source: str, known: frozenset[str] = frozenset()) -> float:
    """Share of the text's content words that stand in the source or are `known` stems; 1.0 for a text without any."""
    words = content_words(text)
    known = known.union(content_words(source), numbers(source))
    return sum(word in known for word in words) / len(words) if words else 1.0


def answer_support(row: Row) -> float:
    """Share of the answer's content words that the row's source supports.

    Of a knowledge row only what is new counts: words of the question need no support, and give none. Where nothing but the
    question can support an answer, it does.
    """
    source = row["support"] or ""
    if row["kind"] != "knowledge":
        return support(affirmed(row["answer"]), source or row["question"])  # 'None' may be said of any source
    asked = set(content_words(row["question"]))
    known = set(content_words(source)) | numbers(source)
    news = [word for word in content_words(row["answer"]) if word not in asked]
    return sum(word in known for word in news) / len(news) if news else 1.0


def uninformative(row: Row, rules: Rules, leaf: Profile) -> Reason:
    if not rules.informative or row["kind"] != "knowledge":
        return None
    news = set(content_words(row["answer"])) - set(content_words(row["question"]))
    yes_or_no = re.match(r"(?:yes|no)\b", row["answer"], re.IGNORECASE) or negated(row["answer"]) != negated(row["question"])
    return None if news or yes_or_no else "answer only repeats the question"


def unsupported_fact(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """A number or proper name of the answer that neither source nor question holds."""
    if not rules.facts or not row["support"]:
        return None
    source = f"{row['support']} {row['question']}"
    if strange := numbers(row["answer"]) - numbers(source):
        return f"the number {min(strange)} is not in the source"
    known = set(re.findall(r"\w+", source.casefold())) | set(content_words(source)) | leaf.subject
    for name in names(row["answer"]):
        parts = [part for part in re.findall(r"[^\W\d]+", name.casefold()) if len(part) > 1]
        if any(part not in known and not set(content_words(part)) <= known for part in parts):
            return f"the name {name!r} is not in the source"
    return _swapped_fact(row) if row["kind"] == "grounded_skill" else None


def _swapped_fact(row: Row) -> Reason:
    """A number or name of a sentence that the answer retells, replaced by something else of the source.

    Of skills only: those retell a few lines, while what is told of a document may come together from all of it.
    """
    source, question = set(content_words(row["support"])), set(content_words(row["question"]))
    for said, sentence in _retold(row):
        words, known = set(content_words(said)), set(content_words(sentence))
        facts = [*names(sentence), *filter(numbers, sentence.split())]
        lost, new = set(content_words(" ".join(facts))) - words - question, words - known
        if lost and len(new) == 1 and new <= source - question and len(words & known) >= _RETOLD:
            return f"{said!r} has {min(new)!r} for {min(lost)!r}"
    return None


def contradiction(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """The answer restates a sentence of the source with a negation that this has not, or without the one that it has."""
    answers_no = re.match(r"(?:yes|no)\b", row["answer"], re.IGNORECASE)
    if not rules.facts or not row["support"] or answers_no:
        return None
    for said, sentence in _retold(row):
        if negated(said) and not negated(sentence) and not negated(row["question"]) and _restates(sentence, said):
            return f"{said!r} negates what the source says"
        if negated(sentence) and not negated(said) and _restates(said, sentence):
            return f"{said!r} drops a negation of the source"
    return None


def _restates(text: str, denial: str) -> bool:
    """Whether a text tells most of what the other one denies."""
    denied = affirmed(denial)
    return bool(content_words(denied)) and support(denied, text) >= _RESTATED


def _retold(row: Row) -> Iterator[tuple[str, str]]:
    """Each sentence of the answer, with the one of the source that it is nearest to."""
    told = sentences(row["support"])
    for said in sentences(row["answer"]):
        yield said, _nearest(told, said, row["question"])


def _nearest(told: list[str], said: str, asked: str) -> str:
    """The sentence that shares most words with what is said; of several, the one nearest to the question."""
    words, asked_words = set(content_words(said)), set(content_words(asked))

    def shared(sentence: str) -> tuple[int, int]:
        known = set(content_words(sentence))
        return len(words & known), len(asked_words & known)

    return max(told, key=shared, default="")


def unsupported_answer(row: Row, rules: Rules, leaf: Profile) -> Reason:
    if rules.answer_support is None:
        return None
    found = answer_support(row)
    return None if found >= rules.answer_support else f"{found:.0%} of the answer's words are supported"


def unsupported_question(row: Row, rules: Rules, leaf: Profile) -> Reason:
    if rules.question_support is None or not row["support"]:
        return None
    found = support(row["question"], row["support"], leaf.subject)
    return None if found >= rules.question_support else f"{found:.0%} of the question's words are in the source"


def off_topic(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """A knowledge row whose words are not its documents', or a skill row that reads unlike any seed."""
    if rules.on_topic is None:
        return None
    if row["kind"] == "knowledge":
        asked = "" if row["context"] else row["question"]  # an instruction on a document is in nobody's words
        known = support(f"{asked} {row['answer']}", "", leaf.topics)
        return None if known >= rules.on_topic else f"{known:.0%} of the words are the leaf's"
    alike = similarity(f"{row['question']} {row['answer']}", leaf.style)
    strange = support(row["question"], "", leaf.topics) < _STRANGE_QUESTION
    if alike >= leaf.least_similarity * (_UNLIKE_AND_STRANGE if strange else _UNLIKE):
        return None
    return f"reads unlike the leaf's seeds: similarity {alike:.3f}, of the least like seed {leaf.least_similarity:.3f}"


def ungrounded(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """The source makes the answer hardly likelier; see `lab_pipeline.curation.grounding`."""
    found = row["grounding"]
    if rules.grounding is None or found is None or found >= rules.grounding:
        return None
    return f"the source makes the answer likelier by {found:.2f} nats per token only"
