"""Reject rows by their wording: markup, refusals, references to a source that the reader does not see, unfinished texts."""

import re

from lab_pipeline.curation.phrases import phrases
from lab_pipeline.curation.profile import Profile, Reason, Row
from lab_pipeline.flows.flow import Rule
from lab_pipeline.teacher.protocol import NO_ANSWER
from lab_pipeline.text.words import SPACELESS, all_words, content_words, ends, is_asked

_SENTENCE_WORDS = 4
"""An answer with fewer words may be a phrase, which needs no end mark."""
_ECHO = 6
"""An answer that is a question, and ends in the same six words as the row's question, only repeats it."""
_QUOTED = 3
"""A refusal whose last three words are in the question or source is not the teacher's, but what the row is about."""
_BRACKETS = (("(", ")"), ("[", "]"), ("{", "}"), ("“", "”"), ("«", "»"))
_LOOP = re.compile(r"(\S.{8,}?|\S+\s+\S+\s+)\1{3,}\S{0,40}\s*$", re.DOTALL)
"""A run of nine characters or more, or of two words, which stands four times in a row at the end, as of a model in a loop."""
_CHARACTERS_IN_WORD = 2
"""Scripts without spaces take about two characters where others take a word; each counts as a word in `all_words`."""
_IMPERATIVE = re.compile(r"\W*(?:describe|explain|give|identify|list|name|provide|show|state|tell|write)\b", re.IGNORECASE)
_UNSPACED = re.compile(f"[{SPACELESS}]")


def no_reply(row: Row, leaf: Profile, rule: Rule) -> Reason:
    """Reject rows for which the teacher's reply was empty; the next refresh of the leaf asks again."""
    return row["fault"] if (row["fault"] or "").startswith(NO_ANSWER) else None


def incomplete(row: Row, leaf: Profile, rule: Rule) -> Reason:
    """Reject rows with any fault, or with a question or answer that has no letter or digit."""
    empty = (f"{column} empty" for column in ("question", "answer") if not re.search(r"\w", row[column] or ""))
    return row["fault"] or next(empty, None)


def length(row: Row, leaf: Profile, rule: Rule) -> Reason:
    """Reject rows with a question or answer whose number of words is outside the range that spans the rule's bounds and the
    seeds' lengths. In scripts without spaces, characters count."""
    for column, text, bounds in (("question", row["question"], rule.question), ("answer", row["answer"], rule.answer)):
        words = len(all_words(text))
        shortest, longest = leaf.lengths[column]
        least, most = bounds or (0, words)
        if _UNSPACED.search(text):
            most *= _CHARACTERS_IN_WORD
        if not min(least, shortest) <= words <= max(most, longest):
            return f"{column} has {words} words, not {min(least, shortest)} to {max(most, longest)}"
    return None


def leaked_tag(row: Row, leaf: Profile, rule: Rule) -> Reason:
    """Reject rows whose question or answer has markup of prompts, chat templates or the teacher's output format, unless the
    row's source or, for the answer, its question has it too."""
    source = row["support"] or ""
    for text, given in ((row["question"], source), (row["answer"], f"{row['question']} {source}")):
        for found in phrases("leaked_tag").finditer(text):
            if found.group().strip() not in given:
                return f"prompt markup {found.group().strip()!r}"
    return None


def refusal(row: Row, leaf: Profile, rule: Rule) -> Reason:
    """Reject rows in which the teacher refuses: the answer or question says what the teacher cannot do, or the answer says, in
    knowledge, what the source lacks. A refusal of the answer that question or source also has is not the teacher's."""
    answer, given = row["answer"], f"{row['question']} {row['support'] or ''}".casefold()
    found = phrases("refusal").search(answer) or phrases("no_answer").fullmatch(answer)
    if not found and row["kind"] == "knowledge":
        found = phrases("not_stated").search(answer)
    if found and " ".join(found.group().casefold().split()[-_QUOTED:]) in given:
        return None
    if not found and re.match(r"(?:i|sorry|unfortunately|as an?)\b", row["question"], re.IGNORECASE):
        found = phrases("refusal").search(row["question"])
    return f"refusal {found.group().strip()!r}" if found else None


def points_at_source(row: Row, leaf: Profile, rule: Rule) -> Reason:
    """Reject knowledge rows that mention 'the text' or ask about an unexplained 'it', since models see these rows without their
    document. Rows with a context (document instructions) pass."""
    if row["kind"] != "knowledge" or row["context"]:
        return None
    question, answer = row["question"], row["answer"]
    found = phrases("points_at_source").search(question) or phrases("dangling_question").search(question)
    if not found and (found := phrases("points_at_source").search(answer)):
        named = set(content_words(found.group()))
        found = None if named and named <= set(content_words(question)) else found  # 'Who was the author of the act?'
    if not found and (found := phrases("the_source").search(question) or phrases("the_source").search(answer)):
        found = None if found[1].casefold() in (row["support"] or "").casefold() else found
    return f"{found.group()!r} means nothing without the source" if found else None


def no_question(row: Row, leaf: Profile, rule: Rule) -> Reason:
    """Reject questions that neither end in a question mark of any script, or the Japanese particle that asks, nor begin with an
    English imperative."""
    asks = is_asked(row["question"]) or re.search(r"か[。]?\s*$", row["question"]) or _IMPERATIVE.match(row["question"])
    return None if asks else "question lacks its '?'"


def unfinished(row: Row, leaf: Profile, rule: Rule) -> Reason:
    """Reject rows whose question or answer ends in a word or mark after which something must follow, or in an open bracket; and
    answers that end in half a word or, where all the leaf's seeds end their sentences with a mark, in none."""
    for column in ("question", "answer"):
        text: str = row[column]
        found = phrases("open_end").search(text.rstrip().rpartition("\n")[2])
        if found and (column == "answer" or found.group().strip().isalpha()):
            return f"{column} ends in {found.group().strip()!r}"
        for opening, closing in _BRACKETS:
            if text.count(opening) > text.count(closing) and opening not in text.replace(f"{opening}{closing}", "")[:1]:
                return f"{column} leaves {opening!r} open"
    answer = row["answer"].rstrip()
    if ends(answer):
        return None
    last = re.findall(r"\w+", answer.casefold())[-1]
    given = f"{row['question']} {row['support'] or ''}".casefold()
    word = last.isalpha() and len(last) > 1 and answer.endswith(f" {last}") and last not in leaf.words
    if word and re.search(rf"\b{last}(?!e?s?\b)\w", given) and not re.search(rf"\b{last}\b", given):
        return f"answer ends in the half word {last!r}"
    line = answer.rpartition("\n")[2]
    whole = len(line.split()) < _SENTENCE_WORDS or re.match(r"\s*(?:[\d*|+•-]|\w\))", line)  # list items, rows of tables
    return "answer is a sentence without an end" if leaf.end_marks and not whole else None


def repetitive(row: Row, leaf: Profile, rule: Rule) -> Reason:
    """Reject rows whose context or answer ends in a loop, as small models write, and answers that only repeat the question."""
    for column in ("context", "answer"):
        if _LOOP.search(row[column] or ""):
            return f"{column} repeats itself"
    echo = row["question"].casefold().split()[-_ECHO:]
    echoes = is_asked(row["answer"]) and row["answer"].casefold().split()[-_ECHO:] == echo
    return "answer repeats the question" if echoes else None
