"""Check by words alone whether a row is supported by its source and belongs to its leaf.

Judges and `lab_pipeline.curation.grounding` find faults that words cannot show, such as a wrong span of the right passage.
"""

import re
from collections.abc import Iterator

from lab_pipeline.curation.profile import Profile, Reason, Row, similarity
from lab_pipeline.flows.flow import Rules
from lab_pipeline.text.sentences import sentences
from lab_pipeline.text.words import affirmed, content_words, names, negated, numbers

_YES_OR_NO = re.compile(r"(?:yes|no)\b", re.IGNORECASE)

_RESTATED = 0.8
"""A text with at least this share of another text's content words says the same, so both must agree in negation."""

_RETOLD = 3
"""A sentence of an answer retells a source sentence if it shares at least this many content words with it and adds one."""

_DISSIMILAR = 0.7
_DISSIMILAR_AND_UNKNOWN = 1.0
_UNKNOWN_QUESTION = 0.15
"""A skill row is off topic if its similarity to the seeds is below 0.7 times `Profile.least_similarity`, or below 1.0 times if
the leaf's texts have less than 0.15 of the question's content words. With four seeds drawn from each of six skill leaves, this
rejects 4 of 160 other seeds, and 87 % of other leaves' rows and general questions; with five seeds, 1 of 120 and 85 %."""


def support(text: str, source: str, known: frozenset[str] = frozenset()) -> float:
    """Return the share of the text's content words that are in the source or among the `known` stems, from 0 to 1.

    A text without content words has 1.0.
    """
    words = content_words(text)
    known = known.union(content_words(source), numbers(source))
    return sum(word in known for word in words) / len(words) if words else 1.0


def answer_support(row: Row) -> float:
    """Return the share of the answer's content words that the row's source has, from 0 to 1.

    In knowledge, answer words that the question has do not count: they need no support, and give none. In skills, negations of
    the answer do not count, and a row without a source has its question as source. An answer without words that count has 1.0.
    """
    source = row["support"] or ""
    if row["kind"] != "knowledge":
        return support(affirmed(row["answer"]), source or row["question"])  # 'None' may be said of any source
    known, in_question = set(content_words(source)) | numbers(source), set(content_words(row["question"]))
    new = [word for word in content_words(row["answer"]) if word not in in_question]
    return sum(word in known for word in new) / len(new) if new else 1.0


def uninformative(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """Reject knowledge answers that add no content word to the question, unless they begin with yes or no, or one of question
    and answer is negated and the other is not."""
    if not rules.informative or row["kind"] != "knowledge":
        return None
    new = set(content_words(row["answer"])) - set(content_words(row["question"]))
    yes_or_no = _YES_OR_NO.match(row["answer"]) or negated(row["answer"]) != negated(row["question"])
    return None if new or yes_or_no else "answer only repeats the question"


def unsupported_fact(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """Reject answers with a number or proper name that is neither in the source nor in the question; names may also be in the
    leaf's description. In grounded skills, also reject answers with a swapped number or name (`_swapped_fact`). Rows without a
    source pass."""
    if not rules.facts or not row["support"]:
        return None
    source = f"{row['support']} {row['question']}"
    if unknown := numbers(row["answer"]) - numbers(source):
        return f"the number {min(unknown)} is not in the source"
    known = set(re.findall(r"\w+", source.casefold())) | set(content_words(source)) | leaf.subject
    for name in names(row["answer"]):
        parts = [part for part in re.findall(r"[^\W\d]+", name.casefold()) if len(part) > 1]
        if any(part not in known and not set(content_words(part)) <= known for part in parts):
            return f"the name {name!r} is not in the source"
    return _swapped_fact(row, row["support"]) if row["kind"] == "grounded_skill" else None


def _swapped_fact(row: Row, source: str) -> Reason:
    """Reject answers that retell a sentence of the source with its number or name replaced by another word of the source.

    This is for grounded skills only, which retell a few lines: a knowledge answer may combine facts of all its passage.
    """
    source_words, question = set(content_words(source)), set(content_words(row["question"]))
    for stated, sentence in _aligned(row, source):
        words, known = set(content_words(stated)), set(content_words(sentence))
        facts = [*names(sentence), *filter(numbers, sentence.split())]
        lost, new = set(content_words(" ".join(facts))) - words - question, words - known
        if lost and len(new) == 1 and new <= source_words - question and len(words & known) >= _RETOLD:
            return f"{stated!r} has {min(new)!r} for {min(lost)!r}"
    return None


def contradiction(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """Reject answers that restate a sentence of the source but add a negation, or drop the sentence's own. Answers that begin
    with yes or no pass, as do rows without a source."""
    if not rules.facts or not row["support"] or _YES_OR_NO.match(row["answer"]):
        return None
    for stated, sentence in _aligned(row, row["support"]):
        if negated(stated) and not negated(sentence) and not negated(row["question"]) and _affirms(sentence, stated):
            return f"{stated!r} negates what the source says"
        if negated(sentence) and not negated(stated) and _affirms(stated, sentence):
            return f"{stated!r} drops a negation of the source"
    return None


def _affirms(text: str, negation: str) -> bool:
    """Tell whether `text` has at least the share `_RESTATED` of the content words of `negation`, a text that negates them."""
    denied = affirmed(negation)
    return bool(content_words(denied)) and support(denied, text) >= _RESTATED


def _aligned(row: Row, source: str) -> Iterator[tuple[str, str]]:
    """Pair each sentence of the answer with the source sentence that shares most words with it. In a tie, take the one that
    shares more words with the question. Without a source sentence, pair it with an empty text."""
    question = set(content_words(row["question"]))
    in_source = [(sentence, set(content_words(sentence))) for sentence in sentences(source)]
    for stated in sentences(row["answer"]):
        words = set(content_words(stated))
        best = max(in_source, key=lambda each: (len(words & each[1]), len(question & each[1])), default=("", set()))
        yield stated, best[0]


def unsupported_answer(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """Reject answers with too small a share of content words from their source; see `answer_support`."""
    if rules.answer_support is None:
        return None
    found = answer_support(row)
    return None if found >= rules.answer_support else f"{found:.0%} of the answer's words are supported"


def unsupported_question(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """Reject questions with too small a share of content words from their source or the leaf's description. Rows without a
    source pass."""
    if rules.question_support is None or not row["support"]:
        return None
    found = support(row["question"], row["support"], leaf.subject)
    return None if found >= rules.question_support else f"{found:.0%} of the question's words are in the source"


def off_topic(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """Reject knowledge rows with too small a share of content words from the leaf's texts, and skill rows that are too unlike
    the leaf's seeds (see `_UNKNOWN_QUESTION`)."""
    if rules.on_topic is None:
        return None
    if row["kind"] == "knowledge":
        question = "" if row["context"] else row["question"]  # document instructions are worded by the flow
        known = support(f"{question} {row['answer']}", "", leaf.topics)
        return None if known >= rules.on_topic else f"{known:.0%} of the words are the leaf's"
    found = similarity(f"{row['question']} {row['answer']}", leaf.style)
    unknown = support(row["question"], "", leaf.topics) < _UNKNOWN_QUESTION
    if found >= leaf.least_similarity * (_DISSIMILAR_AND_UNKNOWN if unknown else _DISSIMILAR):
        return None
    return f"unlike the leaf's seeds: similarity {found:.3f}, of the least similar seed {leaf.least_similarity:.3f}"


def ungrounded(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """Reject rows whose grounding score is below the flow's threshold: the source hardly makes the answer likelier. Rows
    without a score pass."""
    found = row["grounding"]
    if rules.grounding is None or found is None or found >= rules.grounding:
        return None
    return f"the source makes the answer likelier by only {found:.2f} nats per token"
