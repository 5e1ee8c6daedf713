"""Check by words alone that a row is supported by its source and belongs to its leaf.

Judges and `lab_pipeline.curation.grounding` find what words cannot tell, such as a wrong span of the right passage.
"""

import re
from collections.abc import Iterator

from lab_pipeline.curation.profile import Profile, Reason, Row, similarity
from lab_pipeline.flows.flow import Rules
from lab_pipeline.text.sentences import sentences
from lab_pipeline.text.words import affirmed, content_words, names, negated, numbers

_YES_OR_NO = re.compile(r"(?:yes|no)\b", re.IGNORECASE)

_RESTATED = 0.8
"""A text with this share of another's content words says the same, so both must agree in negation."""

_RETOLD = 3
"""A sentence of an answer that shares this many content words with a sentence of the source, and adds one word, retells it."""

_DISSIMILAR = 0.7
_DISSIMILAR_AND_UNKNOWN = 1.0
_UNKNOWN_QUESTION = 0.15
"""A skill row is off topic if its similarity to the seeds is below 0.7 of that of the least similar seed, or below all of it
if the leaf knows less than 0.15 of the question's words. With four seeds drawn from each of six skill leaves, this rejects 4 of
160 other seeds, and 87 % of other leaves' rows and general questions; with five seeds, 1 of 120 and 85 %."""


def support(text: str, source: str, known: frozenset[str] = frozenset()) -> float:
    """Return the share of the text's content words that are in the source or among the `known` stems; 1.0 if it has none."""
    words = content_words(text)
    known = known.union(content_words(source), numbers(source))
    return sum(word in known for word in words) / len(words) if words else 1.0


def answer_support(row: Row) -> float:
    """Return the share of the answer's content words that the row's source supports.

    In knowledge, only words that are not in the question count: the question needs no support, and gives none. In a skill
    without a context, the question is the source.
    """
    source = row["support"] or ""
    if row["kind"] != "knowledge":
        return support(affirmed(row["answer"]), source or row["question"])  # 'None' may be said of any source
    known, in_question = set(content_words(source)) | numbers(source), set(content_words(row["question"]))
    new = [word for word in content_words(row["answer"]) if word not in in_question]
    return sum(word in known for word in new) / len(new) if new else 1.0


def uninformative(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """Reject knowledge answers that only repeat the question, other than yes or no."""
    if not rules.informative or row["kind"] != "knowledge":
        return None
    new = set(content_words(row["answer"])) - set(content_words(row["question"]))
    yes_or_no = _YES_OR_NO.match(row["answer"]) or negated(row["answer"]) != negated(row["question"])
    return None if new or yes_or_no else "answer only repeats the question"


def unsupported_fact(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """Reject answers with a number or proper name that is neither in the source nor in the question."""
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
    """Reject answers that retell a sentence with its number or name replaced by something else from the source.

    Used for grounded skills only, which retell a few lines; an answer about a document may combine all of it.
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
    """Reject answers that restate a sentence of the source but add a negation, or drop the one that it has."""
    if not rules.facts or not row["support"] or _YES_OR_NO.match(row["answer"]):
        return None
    for stated, sentence in _aligned(row, row["support"]):
        if negated(stated) and not negated(sentence) and not negated(row["question"]) and _affirms(sentence, stated):
            return f"{stated!r} negates what the source says"
        if negated(sentence) and not negated(stated) and _affirms(stated, sentence):
            return f"{stated!r} drops a negation of the source"
    return None


def _affirms(text: str, negation: str) -> bool:
    """Tell whether a text affirms most of what the other one negates."""
    denied = affirmed(negation)
    return bool(content_words(denied)) and support(denied, text) >= _RESTATED


def _aligned(row: Row, source: str) -> Iterator[tuple[str, str]]:
    """Pair each sentence of the answer with the most similar one of the source, by shared words, ties by the question's."""
    question = set(content_words(row["question"]))
    in_source = [(sentence, set(content_words(sentence))) for sentence in sentences(source)]
    for stated in sentences(row["answer"]):
        words = set(content_words(stated))
        best = max(in_source, key=lambda each: (len(words & each[1]), len(question & each[1])), default=("", set()))
        yield stated, best[0]


def unsupported_answer(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """Reject answers with too few content words from their source."""
    if rules.answer_support is None:
        return None
    found = answer_support(row)
    return None if found >= rules.answer_support else f"{found:.0%} of the answer's words are supported"


def unsupported_question(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """Reject questions with too few content words from their source."""
    if rules.question_support is None or not row["support"]:
        return None
    found = support(row["question"], row["support"], leaf.subject)
    return None if found >= rules.question_support else f"{found:.0%} of the question's words are in the source"


def off_topic(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """Reject knowledge rows with too few words of the leaf, and skill rows that are unlike its seeds."""
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
    """Reject answers that their source hardly makes likelier; see `lab_pipeline.curation.grounding`."""
    found = row["grounding"]
    if rules.grounding is None or found is None or found >= rules.grounding:
        return None
    return f"the source makes the answer likelier by only {found:.2f} nats per token"
