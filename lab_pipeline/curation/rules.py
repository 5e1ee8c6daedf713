"""Define the rules that need no judge. A rule is a function that returns the reason to reject a row, or None.

The order of `RULES` matters: the first rule that a row breaks rejects it, and the funnel counts the row under this rule's name.
"""

import re
from collections.abc import Callable
from typing import cast

from lab_pipeline.core.rows import FrozenLeaf
from lab_pipeline.curation import answering, support, wording
from lab_pipeline.curation.profile import Profile, Reason, Row
from lab_pipeline.flows.flow import Rules
from lab_pipeline.teacher.protocol import NO_ANSWER
from lab_pipeline.text.language import language_probability, scripts, telling_words
from lab_pipeline.text.words import all_words

Rule = Callable[[Row, Rules, Profile], Reason]

_LANGUAGE_FLOOR = 0.001
"""A text is in another language if the leaf's language has a lower probability than this. The floor is low because detectors
are seldom sure of short texts."""
_LANGUAGE_WORDS = 3
"""Apply the language test only to texts with at least this many words."""
_KNOWN_WORDS = 0.5
"""Apply the language test only to texts of whose words the leaf knows at most this share: detectors misread its jargon."""
_UNKNOWN_FLOOR = 1e-5
_UNKNOWN_LETTERS = 8
"""A text is also in another language if it has two or more words that the leaf does not know, with at least this many letters
together, and their probability in the leaf's language is below `_UNKNOWN_FLOOR`: 'gibt zwei' has 3e-6 in English, 'gluteus
maximus' 3e-5. This finds 26 of 40 foreign answers of one to seven words in English leaves, and keeps 650 English ones."""

_HABIT = 0.2
"""If at least this share of a leaf's seeds breaks a rule, the rule is off for that leaf: one of upstream's minimum of five."""


def no_reply(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """Reject rows for which the teacher's reply was empty; the next refresh of the leaf asks again."""
    return row["fault"] if (row["fault"] or "").startswith(NO_ANSWER) else None


def incomplete(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """Reject rows with any fault, or with a question or answer that has no letter or digit."""
    empty = (f"{column} empty" for column in ("question", "answer") if not re.search(r"\w", row[column] or ""))
    return row["fault"] or next(empty, None)


def wrong_length(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """Reject rows with a question or answer whose number of words is outside the range that spans the flow's bounds and the
    seeds' lengths."""
    texts = ("question", row["question"], rules.question_words), ("answer", row["answer"], rules.answer_words)
    for column, text, (least, most) in texts:
        words = len(all_words(text))
        shortest, longest = leaf.lengths[column]
        least, most = min(least, shortest), max(most, longest)
        if not least <= words <= most:
            return f"{column} has {words} words, not {least} to {most}"
    return None


def other_language(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """Reject rows with letters of a script that the leaf lacks, and rows whose question, answer, or both together are in
    another language than the leaf's. If the leaf's language is unclear, only scripts count."""
    if not rules.language:
        return None
    if foreign := scripts(f"{row['question']} {row['answer']}") - leaf.scripts:
        return f"{min(foreign).lower()} letters, which the leaf does not use"
    if not leaf.language:
        return None
    question, answer = telling_words(row["question"]), telling_words(row["answer"])
    for words in (question, answer, question + answer):
        unknown = [word for word in words if not set(re.findall(r"\w+", word.casefold())) <= leaf.words]
        mostly_unknown = len(words) >= _LANGUAGE_WORDS and len(unknown) > _KNOWN_WORDS * len(words)
        enough_unknown = len(unknown) > 1 and len("".join(unknown)) >= _UNKNOWN_LETTERS
        if (mostly_unknown and language_probability(words, leaf.language) < _LANGUAGE_FLOOR) or (
            enough_unknown and language_probability(unknown, leaf.language) < _UNKNOWN_FLOOR
        ):
            return f"not {leaf.language}: {' '.join(unknown[:5])}"
    return None


RULES: tuple[Rule, ...] = (
    no_reply,
    incomplete,
    wrong_length,
    wording.leaked_tag,
    wording.refusal,
    wording.points_at_source,
    wording.no_question,
    wording.open_end,
    wording.open_preposition,
    wording.open_bracket,
    wording.half_word,
    wording.unfinished,
    wording.repetitive,
    other_language,
    support.uninformative,
    support.unsupported_fact,
    support.contradiction,
    support.unsupported_answer,
    support.unsupported_question,
    answering.general_question,
    answering.unanswered,
    support.off_topic,
    support.ungrounded,
)

_FIXED = (no_reply, incomplete, wrong_length, wording.no_question, support.ungrounded)
"""Rules that hold for every leaf, even if its seeds break them."""
_ON_DOCUMENTS = (
    wording.points_at_source,
    support.uninformative,
    support.unsupported_fact,
    support.contradiction,
    support.unsupported_answer,
    support.unsupported_question,
    answering.general_question,
    answering.unanswered,
)
"""Rules that hold for every knowledge leaf, even if its seeds break them."""


def applicable(source: FrozenLeaf, rules: Rules, leaf: Profile) -> tuple[Rule, ...]:
    """Return the rules that hold for a leaf, in the order of `RULES`: those that its own seeds keep (see `_HABIT`).

    What seeds do is what the leaf teaches, such as markup, refusals or another language. But the rules in `_FIXED` always hold,
    and in knowledge those in `_ON_DOCUMENTS` too, since knowledge must rest on its documents, whatever its seeds do.
    """
    always = _FIXED + (_ON_DOCUMENTS if source["kind"] == "knowledge" else ())
    rest = {"kind": source["kind"], "fault": None, "grounding": None}
    seeds = [cast(Row, {**seed, **rest, "support": seed["context"]}) for seed in source["seeds"]]
    broken = {rule: sum(rule(seed, rules, leaf) is not None for seed in seeds) for rule in RULES if rule not in always}
    return tuple(rule for rule in RULES if rule in always or broken[rule] < _HABIT * max(len(seeds), 1))
