"""Rules on how a row is worded: markup, refusals, dependence on a source that the reader does not see, unfinished texts."""

from __future__ import annotations

import re

from lab_pipeline.curation.phrases import (
    ADVERBIAL,
    DANGLING_QUESTION,
    DETERMINER,
    FINITE_VERB,
    LEAKED_TAG,
    NO_ANSWER,
    NOT_STATED,
    OPEN_END,
    OPEN_PREPOSITION,
    POINTS_AT_SOURCE,
    REFUSAL,
    THE_SOURCE,
)
from lab_pipeline.curation.profile import Profile, Reason, Row
from lab_pipeline.flows.flow import Rules
from lab_pipeline.text.sentences import sentences
from lab_pipeline.text.words import QUESTION_MARKS, STOP_WORDS, content_words, is_asked

_SENTENCE_WORDS = 3
"""Seed answers without an end mark in the sample and the public taxonomy are phrases of up to four words, none with a finite
verb; what has one, and this many words, is a sentence, which ends in a mark."""
_MOST_OF_SENTENCE = 2 / 3
_ECHO = 6
"""An answer that ends in this many words of the question, question mark included, went on asking."""
_REPEATED = 3
"""A refusal whose last three words are the question's or the source's is what the row is about."""
_BRACKETS = (("(", ")"), ("[", "]"), ("{", "}"), ("“", "”"), ("«", "»"))


def leaked_tag(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """Markup of prompts or of the teacher's output format, unless the row's own source holds it."""
    own = row["support"] or ""
    for text in (row["question"], row["answer"]):
        for found in LEAKED_TAG.finditer(text):
            if found.group().strip() not in own:
                return f"prompt markup {found.group().strip()!r}"
    return None


def refusal(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """A teacher that speaks of what it cannot do, or, in knowledge, of what the source lacks; repeating such words is none."""
    answer, own = row["answer"], f"{row['question']} {row['support'] or ''}".casefold()
    found = REFUSAL.search(answer) or NO_ANSWER.fullmatch(answer)
    if not found and row["kind"] == "knowledge":
        found = NOT_STATED.search(answer)
    if found and " ".join(found.group().casefold().split()[-_REPEATED:]) in own:
        return None
    if not found and re.match(r"(?:i|sorry|unfortunately|as an?)\b", row["question"], re.IGNORECASE):
        found = REFUSAL.search(row["question"])
    return f"refusal {found.group().strip()!r}" if found else None


def points_at_source(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """A knowledge row, shown without its document, that names 'the text' or asks about an 'it' that nothing explains."""
    if row["kind"] != "knowledge" or row["context"]:
        return None
    question, answer = row["question"], row["answer"]
    found = POINTS_AT_SOURCE.search(question) or DANGLING_QUESTION.search(question)
    if not found and (found := POINTS_AT_SOURCE.search(answer)):
        named = set(content_words(found.group()))
        found = None if named and named <= set(content_words(question)) else found  # 'Who was the author of the act?'
    if not found and (found := THE_SOURCE.search(question) or THE_SOURCE.search(answer)):
        found = None if found[1].casefold() in (row["support"] or "").casefold() else found
    return f"{found.group()!r} means nothing without the source" if found else None


def no_question(row: Row, rules: Rules, leaf: Profile) -> Reason:
    return "question lacks its '?'" if rules.question_mark and not is_asked(row["question"]) else None


def open_end(row: Row, rules: Rules, leaf: Profile) -> Reason:
    return _ends_in(OPEN_END, row)


def open_preposition(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """Apart from other open ends, for leaves whose phrases end so: 'take part in'."""
    return _ends_in(OPEN_PREPOSITION, row)


def _ends_in(ending: re.Pattern[str], row: Row) -> Reason:
    for column in ("question", "answer"):
        if found := ending.search(row[column]):
            return f"{column} ends in {found.group().strip()!r}"
    return None


def open_bracket(row: Row, rules: Rules, leaf: Profile) -> Reason:
    for column in ("question", "answer"):
        for opening, closing in _BRACKETS:
            if row[column].count(opening) > row[column].count(closing):
                return f"{column} leaves {opening!r} open"
    return None


def half_word(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """The answer's last word is none of the leaf's, but the beginning of the one that follows in question or source."""
    text = row["answer"].casefold().strip()
    if not text[-1].isalnum():
        return None
    *earlier, last = re.findall(r"\w+", text)
    if not last.isalpha() or last in leaf.words or last in STOP_WORDS:
        return None
    own = f"{row['question']} {row['support'] or ''}".casefold()
    before = rf"{re.escape(earlier[-1])}\W+" if earlier else ""
    whole = re.search(rf"\b{re.escape(last)}\b", own)
    half = re.search(rf"\b{before}{re.escape(last)}(?!e?s?\b)\w", own)
    return f"answer ends in the half word {last!r}" if half and not whole else None


def unfinished(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """The answer is a sentence by its verb or by its source, without an end."""
    *earlier, line = row["answer"].strip().splitlines()
    bare = any(each.rstrip()[-1].isalnum() for each in earlier if len(each.split()) >= _SENTENCE_WORDS)
    words = line.casefold().split()
    if not line[-1].isalnum() or bare or len(words) < _SENTENCE_WORDS:  # lists and verse end their lines as they like
        return None
    told = sentences(row["support"] or "")
    stops = (leaf.end_marks and FINITE_VERB.search(line)) or any(_stops_short(words, sentence.casefold()) for sentence in told)
    return "answer is a sentence without an end" if stops else None


def _stops_short(words: list[str], told: str) -> bool:
    """Whether the words begin a sentence, up to a determiner or for the most part, or end where a content word must follow."""
    text = " ".join(words)
    if text in told:
        most = _MOST_OF_SENTENCE * len(told) < len(text) < len(told.rstrip(f".!。{QUESTION_MARKS}"))
        before = DETERMINER.match(told, len(text)) and not ADVERBIAL.search(text)
        return told.startswith(text) and bool(most or before)
    following = re.search(rf"\b{re.escape(' '.join(words[-2:]))}\s(\w+)", told)
    return following is not None and following[1] not in STOP_WORDS


def repetitive(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """Small models fall into loops: the same three words again and again."""
    for column in ("context", "answer"):
        words = (row[column] or "").casefold().split()
        triples = list(zip(words, words[1:], words[2:], strict=False))
        if len(triples) - len(set(triples)) > max(1, len(triples) // 5):
            return f"{column} repeats itself"
    echo = row["question"].casefold().split()[-_ECHO:]
    echoes = is_asked(row["answer"]) and row["answer"].casefold().split()[-_ECHO:] == echo
    return "answer repeats the question" if echoes else None
