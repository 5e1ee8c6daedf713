"""The rules that need no judge. Each looks at one row and says why it must go, or nothing.

The order is the funnel's: a row is rejected by the first rule that it breaks, and stands in the funnel there only.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from lab_pipeline.curation.answering import general_question, unanswered
from lab_pipeline.curation.profile import Profile, Reason, Row
from lab_pipeline.curation.support import (
    contradiction,
    off_topic,
    ungrounded,
    uninformative,
    unsupported_answer,
    unsupported_fact,
    unsupported_question,
)
from lab_pipeline.curation.wording import (
    half_word,
    leaked_tag,
    no_question,
    open_bracket,
    open_end,
    open_preposition,
    points_at_source,
    refusal,
    repetitive,
    unfinished,
)
from lab_pipeline.flows.flow import Rules
from lab_pipeline.teacher.protocol import NO_ANSWER
from lab_pipeline.text.language import language_probability, scripts, telling_words
from lab_pipeline.text.words import all_words

Rule = Callable[[Row, Rules, Profile], Reason]

_LANGUAGE_FLOOR = 0.001
"""A text is of another language when less than this probability is left for the expected one; short texts seldom give a
clear verdict, so only clear ones count."""
_LANGUAGE_WORDS = 3
_KNOWN_WORDS = 0.5
"""A text of which the leaf knows this share of words is of the leaf's language, whatever a detector thinks of its jargon."""
_STRANGE_FLOOR = 1e-5
_STRANGE_LETTERS = 8
"""Two unknown words of eight letters tell another language when clearer still: 'gibt zwei' has 3e-6 in English, 'gluteus
maximus' 3e-5. So 26 of 40 foreign answers of one to seven words are found in English leaves, and 650 English ones kept."""

_HABIT = 0.2
"""Share of a leaf's seeds that must break a rule for the leaf to be free of it: one of upstream's minimum of five."""


def no_reply(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """Not the row's fault: it is asked again when the leaf is refreshed next."""
    return row["fault"] if (row["fault"] or "").startswith(NO_ANSWER) else None


def incomplete(row: Row, rules: Rules, leaf: Profile) -> Reason:
    if row["fault"]:
        return row["fault"]
    return next((f"{column} empty" for column in ("question", "answer") if not re.search(r"\w", row[column] or "")), None)


def wrong_length(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """Outside of the flow's bounds and of those of the leaf's own seeds: what these do is right, be it a label or an essay."""
    for column, (least, most) in (("question", rules.question_words), ("answer", rules.answer_words)):
        words = len(all_words(row[column]))
        shortest, longest = leaf.lengths[column]
        least, most = min(least, shortest), max(most, longest)
        if not least <= words <= most:
            return f"{column} has {words} words, not {least} to {most}"
    return None


def other_language(row: Row, rules: Rules, leaf: Profile) -> Reason:
    if not rules.language:
        return None
    if foreign := scripts(f"{row['question']} {row['answer']}") - leaf.scripts:
        return f"{min(foreign).lower()} letters, which the leaf does not use"
    if not leaf.language:
        return None
    question, answer = telling_words(row["question"]), telling_words(row["answer"])
    for words in (question, answer, question + answer):
        strange = [word for word in words if not set(re.findall(r"\w+", word.casefold())) <= leaf.words]
        unknown = len(words) >= _LANGUAGE_WORDS and len(strange) > _KNOWN_WORDS * len(words)
        if (unknown and language_probability(words, leaf.language) < _LANGUAGE_FLOOR) or (
            len(strange) > 1
            and len("".join(strange)) >= _STRANGE_LETTERS
            and language_probability(strange, leaf.language) < _STRANGE_FLOOR
        ):
            return f"not {leaf.language}: {' '.join(strange[:5])}"
    return None


RULES: tuple[Rule, ...] = (
    no_reply,
    incomplete,
    wrong_length,
    leaked_tag,
    refusal,
    points_at_source,
    no_question,
    open_end,
    open_preposition,
    open_bracket,
    half_word,
    unfinished,
    repetitive,
    other_language,
    uninformative,
    unsupported_fact,
    contradiction,
    unsupported_answer,
    unsupported_question,
    general_question,
    unanswered,
    off_topic,
    ungrounded,
)

_FIXED = (no_reply, incomplete, wrong_length, no_question, ungrounded)
_ON_DOCUMENTS = (
    points_at_source,
    uninformative,
    unsupported_fact,
    contradiction,
    unsupported_answer,
    unsupported_question,
    general_question,
    unanswered,
)


def applicable(source: dict[str, Any], rules: Rules, leaf: Profile) -> tuple[Rule, ...]:
    """The rules that hold for a leaf: those that its own seeds keep.

    What seeds do is what the leaf teaches, be it markup, refusals or another language. Knowledge must rest on its documents
    whatever the seeds do.
    """
    kept = _FIXED + (_ON_DOCUMENTS if source["kind"] == "knowledge" else ())
    seeds = [
        {**seed, "kind": source["kind"], "support": seed["context"], "fault": None, "grounding": None}
        for seed in source["seeds"]
    ]
    return tuple(
        rule
        for rule in RULES
        if rule in kept or sum(rule(seed, rules, leaf) is not None for seed in seeds) < _HABIT * max(len(seeds), 1)
    )
