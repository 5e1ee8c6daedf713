"""Reject rows by their wording: markup, refusals, references to a source that the reader does not see, unfinished texts."""

import re

from lab_pipeline.curation import phrases
from lab_pipeline.curation.profile import Profile, Reason, Row
from lab_pipeline.flows.flow import Rules
from lab_pipeline.text.sentences import sentences
from lab_pipeline.text.words import QUESTION_MARKS, STOP_WORDS, content_words, is_asked

_SENTENCE_WORDS = 3
"""An answer with at least this many words and a finite verb is a sentence. In the sample and public taxonomies, seed answers
without an end mark are phrases of up to four words, none with a finite verb."""
_MOST_OF_SENTENCE = 2 / 3
"""An answer that begins a source sentence and has more than this share of it, but not all of it, is cut off."""
_ECHO = 6
"""An answer that is a question, and ends in the same six words as the row's question, only repeats it."""
_QUOTED = 3
"""A refusal whose last three words are in the question or source is not the teacher's, but what the row is about."""
_BRACKETS = (("(", ")"), ("[", "]"), ("{", "}"), ("“", "”"), ("«", "»"))


def leaked_tag(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """Reject rows whose question or answer has markup of prompts, chat templates or the teacher's output format that the row's
    source does not have."""
    source = row["support"] or ""
    for text in (row["question"], row["answer"]):
        for found in phrases.LEAKED_TAG.finditer(text):
            if found.group().strip() not in source:
                return f"prompt markup {found.group().strip()!r}"
    return None


def refusal(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """Reject rows in which the teacher refuses: the answer or question says what the teacher cannot do, or the answer says, in
    knowledge, what the source lacks. A refusal of the answer that question or source also has is not the teacher's."""
    answer, given = row["answer"], f"{row['question']} {row['support'] or ''}".casefold()
    found = phrases.REFUSAL.search(answer) or phrases.NO_ANSWER.fullmatch(answer)
    if not found and row["kind"] == "knowledge":
        found = phrases.NOT_STATED.search(answer)
    if found and " ".join(found.group().casefold().split()[-_QUOTED:]) in given:
        return None
    if not found and re.match(r"(?:i|sorry|unfortunately|as an?)\b", row["question"], re.IGNORECASE):
        found = phrases.REFUSAL.search(row["question"])
    return f"refusal {found.group().strip()!r}" if found else None


def points_at_source(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """Reject knowledge rows that mention 'the text' or ask about an unexplained 'it', since models see these rows without their
    document. Rows with a context (document instructions) pass."""
    if row["kind"] != "knowledge" or row["context"]:
        return None
    question, answer = row["question"], row["answer"]
    found = phrases.POINTS_AT_SOURCE.search(question) or phrases.DANGLING_QUESTION.search(question)
    if not found and (found := phrases.POINTS_AT_SOURCE.search(answer)):
        named = set(content_words(found.group()))
        found = None if named and named <= set(content_words(question)) else found  # 'Who was the author of the act?'
    if not found and (found := phrases.THE_SOURCE.search(question) or phrases.THE_SOURCE.search(answer)):
        found = None if found[1].casefold() in (row["support"] or "").casefold() else found
    return f"{found.group()!r} means nothing without the source" if found else None


def no_question(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """Reject questions that do not end in a question mark, if the flow asks for one (`rules.question_mark`)."""
    return "question lacks its '?'" if rules.question_mark and not is_asked(row["question"]) else None


def open_end(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """Reject rows whose question or answer ends in a word or mark after which something must follow."""
    return _ends_in(phrases.OPEN_END, row)


def open_preposition(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """Reject rows whose question or answer ends in a preposition. This is a rule of its own, so that leaves with phrases such
    as 'take part in' switch off nothing else."""
    return _ends_in(phrases.OPEN_PREPOSITION, row)


def _ends_in(ending: re.Pattern[str], row: Row) -> Reason:
    for column in ("question", "answer"):
        if found := ending.search(row[column]):
            return f"{column} ends in {found.group().strip()!r}"
    return None


def open_bracket(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """Reject rows whose question or answer has more opening than closing brackets or quotation marks of a kind."""
    for column in ("question", "answer"):
        for opening, closing in _BRACKETS:
            if row[column].count(opening) > row[column].count(closing):
                return f"{column} leaves {opening!r} open"
    return None


def half_word(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """Reject answers whose last word is cut off. The leaf does not know such a word; in the question or source it is never
    whole, but begins a longer word that comes after the answer's last word but one."""
    text = row["answer"].casefold().strip()
    if not text[-1].isalnum():
        return None
    *earlier, last = re.findall(r"\w+", text)
    if not last.isalpha() or last in leaf.words or last in STOP_WORDS:
        return None
    given = f"{row['question']} {row['support'] or ''}".casefold()
    before = rf"{re.escape(earlier[-1])}\W+" if earlier else ""
    whole = re.search(rf"\b{re.escape(last)}\b", given)
    half = re.search(rf"\b{before}{re.escape(last)}(?!e?s?\b)\w", given)
    return f"answer ends in the half word {last!r}" if half and not whole else None


def unfinished(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """Reject answers whose last line is a sentence without an end mark.

    It is one if a sentence of the source goes on there, or if it has a finite verb and any seed's answer has an end mark.
    """
    *earlier, line = row["answer"].strip().splitlines()
    bare = any(each.rstrip()[-1].isalnum() for each in earlier if len(each.split()) >= _SENTENCE_WORDS)
    words = line.casefold().split()
    if not line[-1].isalnum() or bare or len(words) < _SENTENCE_WORDS:  # lists and verse end their lines as they like
        return None
    cut_off = any(_is_cut_off(words, sentence.casefold()) for sentence in sentences(row["support"] or ""))
    no_mark = leaf.end_marks and phrases.FINITE_VERB.search(line)
    return "answer is a sentence without an end" if cut_off or no_mark else None


def _is_cut_off(words: list[str], sentence: str) -> bool:
    """Tell whether a sentence of the source goes on where the words end.

    Either it begins with the words, and they are most of it or a determiner follows; or it only has their last two words, and a
    content word follows.
    """
    text = " ".join(words)
    if text in sentence:
        most = _MOST_OF_SENTENCE * len(sentence) < len(text) < len(sentence.rstrip(f".!。{QUESTION_MARKS}"))
        before_determiner = phrases.DETERMINER.match(sentence, len(text)) and not phrases.ADVERBIAL.search(text)
        return sentence.startswith(text) and bool(most or before_determiner)
    following = re.search(rf"\b{re.escape(' '.join(words[-2:]))}\s(\w+)", sentence)
    return following is not None and following[1] not in STOP_WORDS


def repetitive(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """Reject rows whose context or answer repeats more than a fifth of its runs of three words (and more than one), as small
    models in a loop write, and answers that only repeat the question."""
    for column in ("context", "answer"):
        words = (row[column] or "").casefold().split()
        triples = list(zip(words, words[1:], words[2:], strict=False))
        if len(triples) - len(set(triples)) > max(1, len(triples) // 5):
            return f"{column} repeats itself"
    echo = row["question"].casefold().split()[-_ECHO:]
    echoes = is_asked(row["answer"]) and row["answer"].casefold().split()[-_ECHO:] == echo
    return "answer repeats the question" if echoes else None
