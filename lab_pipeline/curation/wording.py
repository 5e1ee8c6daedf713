"""Reject rows by their wording: markup, refusals, references to a source that the reader does not see, unfinished texts."""

import re

from lab_pipeline.curation.phrases import find, find_all
from lab_pipeline.curation.profile import Profile, Reason, Row
from lab_pipeline.flows.flow import Rule
from lab_pipeline.teacher.protocol import NO_ANSWER
from lab_pipeline.text.words import all_words, content_words, ends, is_asked

_SENTENCE_WORDS = 6
"""An answer with fewer words may be a phrase, which needs no end mark."""
_LONG_WORDS = 4
"""An answer with at least this many words and no end mark is cut off if its source goes on; a shorter one may be a name."""
_LAST = 40
"""Number of characters at the end of a text in which its last words are looked for."""
_ITEM = re.compile(r"\s*(?:[\d*|+•-]|\w\))")
"""The beginning of a list item or of a row of a table."""
_LISTED = re.compile(r"\w, *\w+, *(?!and$|or$)\w+$", re.IGNORECASE)
"""The end of a list of single words, the last of which may be any: 'happy, hippos, have'."""
_ECHO = 6
"""An answer that is a question, and ends in the same six words as the row's question, only repeats it."""
_QUOTED = 3
"""A refusal whose last three words are in the question or source is not the teacher's, but what the row is about."""
_BRACKETS = (("(", ")"), ("[", "]"), ("{", "}"), ("“", "”"), ("«", "»"))
_TAIL, _LOOPS = 16, 3
"""A text ends in a loop if it ends in a run, found by its last sixteen characters, that stands there three times in a row."""
_IMPERATIVE = re.compile(r"\W*(?:describe|explain|give|identify|list|name|provide|show|state|tell|write)\b", re.IGNORECASE)


def no_reply(row: Row, leaf: Profile, rule: Rule) -> Reason:
    """Reject rows for which the teacher's reply was empty; the next refresh of the leaf asks again."""
    return row["fault"] if (row["fault"] or "").startswith(NO_ANSWER) else None


def incomplete(row: Row, leaf: Profile, rule: Rule) -> Reason:
    """Reject rows with any fault, or with a question or answer that has no letter or digit."""
    empty = (f"{column} empty" for column in ("question", "answer") if not re.search(r"\w", row[column] or ""))
    return row["fault"] or next(empty, None)


def length(row: Row, leaf: Profile, rule: Rule) -> Reason:
    """Reject rows with a question or answer whose number of words is outside the range that spans the rule's bounds and the
    seeds' lengths. In scripts without spaces, two characters count as a word (`all_words`)."""
    for column, text, bounds in (("question", row["question"], rule.question), ("answer", row["answer"], rule.answer)):
        words = len(all_words(text))
        shortest, longest = leaf.lengths[column]
        least, most = bounds or (0, words)
        if not min(least, shortest) <= words <= max(most, longest):
            return f"{column} has {words} words, not {min(least, shortest)} to {max(most, longest)}"
    return None


def leaked_tag(row: Row, leaf: Profile, rule: Rule) -> Reason:
    """Reject rows whose question or answer has markup of prompts, chat templates or the teacher's output format, unless the
    row's source or, for the answer, its question has it too."""
    source = row["support"] or ""
    for text, given in ((row["question"], source), (row["answer"], f"{row['question']} {source}")):
        for found in find_all("leaked_tag", text):
            if found.group().strip() not in given:
                return f"prompt markup {found.group().strip()!r}"
    return None


def refusal(row: Row, leaf: Profile, rule: Rule) -> Reason:
    """Reject rows in which the teacher refuses: the answer or question says what the teacher cannot do, or the answer says, in
    knowledge, what the source lacks. A refusal of the answer that question or source also has is not the teacher's."""
    answer, given = row["answer"], f"{row['question']} {row['support'] or ''}".casefold()
    found = find("refusal", answer) or find("no_answer", answer)
    if not found and row["kind"] == "knowledge":
        found = find("not_stated", answer)
    if found and " ".join(found.group().casefold().split()[-_QUOTED:]) in given:
        return None
    if not found and re.match(r"(?:i|sorry|unfortunately|as an?)\b", row["question"], re.IGNORECASE):
        found = find("refusal", row["question"])
    return f"refusal {found.group().strip()!r}" if found else None


def points_at_source(row: Row, leaf: Profile, rule: Rule) -> Reason:
    """Reject knowledge rows that mention 'the text' or ask about an unexplained 'it', since models see these rows without their
    document. Rows with a context (document instructions) pass."""
    if row["kind"] != "knowledge" or row["context"]:
        return None
    question, answer = row["question"], row["answer"]
    found = find("points_at_source", question) or find("dangling_question", question)
    if not found and (found := find("points_at_source", answer)):
        named = set(content_words(found.group()))
        found = None if named and named <= set(content_words(question)) else found  # 'Who was the author of the act?'
    if found and found.group().casefold() in (row["support"] or "").casefold():  # 'this document' of the document itself
        return None
    if not found and (found := find("the_source", question) or find("the_source", answer)):
        found = None if found[1].casefold() in (row["support"] or "").casefold() else found
    return f"{found.group()!r} means nothing without the source" if found else None


def no_question(row: Row, leaf: Profile, rule: Rule) -> Reason:
    """Reject questions without a question mark of any script, or the Japanese particle that asks, at their end. Questions that
    begin with an English imperative, such as 'List', pass."""
    asks = is_asked(row["question"]) or re.search(r"か[。]?\s*$", row["question"]) or _IMPERATIVE.match(row["question"])
    return None if asks else "question lacks its '?'"


def unfinished(row: Row, leaf: Profile, rule: Rule) -> Reason:
    """Reject rows whose question or answer ends in a word or mark after which something must follow, or leaves a bracket open;
    and answers that end in half a word, or where their source goes on."""
    for column, text in (("question", row["question"]), ("answer", row["answer"])):
        found = None if _LISTED.search(text) else find("open_end", _last_line(text)[-_LAST:])
        end = found.group().strip() if found else ""
        if end.islower() or (end and column == "answer" and not end.isalpha()):
            return f"{column} ends in {end!r}"
        for opening, closing in _BRACKETS:
            if text.count(opening) > text.count(closing):
                return f"{column} leaves {opening!r} open"
    line = _last_line(row["answer"])
    if ends(line) or _ITEM.match(line) or _LISTED.search(line):
        return None
    words = line.casefold().split()
    before, last = ["", *re.findall(r"\w+", line.casefold())][-2:]
    given = f"{row['question']} {row['support'] or ''}".casefold()
    word = last.isalpha() and len(last) > 1 and line.endswith(f" {last}") and last not in leaf.words
    if word and re.search(rf"\b{before}\W+{last}(?!e?s?\b)\w", given) and not re.search(rf"\b{last}\b", given):
        return f"answer ends in the half word {last!r}"
    if len(words) >= _LONG_WORDS:
        if found := find("open_preposition", line):
            return f"answer ends in {found.group().strip()!r}"
        if going_on := re.search(rf"\b{re.escape(' '.join(words[-2:]))}\s+(\w+)", (row["support"] or "").casefold()):
            return f"answer ends before {going_on[1]!r}, with which its source goes on"
    return None


def _last_line(text: str) -> str:
    return text.rstrip().rpartition("\n")[2]


def no_end_mark(row: Row, leaf: Profile, rule: Rule) -> Reason:
    """Reject answers whose last line is a sentence without an end mark, if all long answers of the leaf's seeds have one."""
    line = _last_line(row["answer"])
    whole = ends(line) or _ITEM.match(line) or len(line.split()) < _SENTENCE_WORDS
    return "answer is a sentence without an end" if leaf.end_marks and not whole else None


def repetitive(row: Row, leaf: Profile, rule: Rule) -> Reason:
    """Reject rows whose context or answer ends in a loop, as small models write, and answers that only repeat the question."""
    for column, text in (("context", (row["context"] or "").strip()), ("answer", row["answer"].strip())):
        before = text.rfind(text[-_TAIL:], 0, len(text) - 1)
        run = text[before + _TAIL :] if before >= 0 else ""
        if any(map(str.isalpha, run)) and text.endswith(run * _LOOPS):
            return f"{column} repeats itself"
    echo = row["question"].casefold().split()[-_ECHO:]
    echoes = is_asked(row["answer"]) and row["answer"].casefold().split()[-_ECHO:] == echo
    return "answer repeats the question" if echoes else None
