"""Rules that need no model. Each looks at one row and says why it must go, or nothing.

The order is the funnel's: a row is rejected by the first rule that it breaks, and stands in the funnel there only.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

from lab_pipeline.flows.flow import Rules
from lab_pipeline.taxonomy.leaf import normalised

Row = dict[str, Any]
Reason = str | None

_LEAKED_TAG = re.compile(
    r"<\|[^|>]{1,40}\|>|\[/?(?:INST|QUESTION|ANSWER|START|END|CONTEXT)\]|^\s*(?:question|answer|sentence|text|user|assistant|system)\s*:",
    re.IGNORECASE | re.MULTILINE,
)
_REFUSAL = re.compile(
    r"\b(?:as an ai|language model|i(?:'m| am) (?:unable|not able) to (?:help|assist|answer|provide)|"
    r"i (?:cannot|can't) (?:help|assist|answer|provide)|i(?:'m| am) sorry,? (?:but )?i (?:cannot|can't|am|do not|don't)|"
    r"(?:is|are) not (?:mentioned|stated|provided|specified|given) in)\b",
    re.IGNORECASE,
)
_POINTS_AT_SOURCE = re.compile(
    r"\b(?:the|this|that|above|given|provided|following) (?:document|passage|sentence|text|paragraph|article|excerpt|context)\b"
    r"|\baccording to (?:it|this|that)\b",
    re.IGNORECASE,
)
_OPEN_END = re.compile(r"(?:\b(?:and|or|the|a|an|of|in|to|with|for|by|is|are|was|were|that|which)|[,;:(–-])\s*$")
_STOP_WORDS = frozenset(
    "a an and are as at be been but by did do does for from had has have he her his how if in into is it its of on or she "
    "so than that the their them then there these they this to was were what when where which who whom whose why will "
    "with would you your i me my we our us not no yes also about can could should may might must name called".split()
)
_LANGUAGE_FLOOR = 0.001
"""A row is of another language when less than this probability is left for the expected one; short texts seldom give a
clear verdict, so only clear ones count."""
_LANGUAGE_WORDS = 4
_LEAF_WORDS = 30
"""With fewer words in its seeds, capitalised ones not counted, a leaf's language is unclear."""
_SPACELESS = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u9fff"
_WORD = re.compile(f"[{_SPACELESS}]|[^\\s{_SPACELESS}]+")
"""A word as the language rules count them: in scripts without spaces, each character is one."""


def content_words(text: str) -> list[str]:
    """Lower-case words that carry content, numbers included, with a plural or possessive 's' taken off."""
    words = re.findall(r"\w+(?:[.,]\d+)*", re.sub(r"['’]s\b", "", text.casefold()))
    return [word[:-1] if len(word) > 3 and word.endswith("s") else word for word in words if word not in _STOP_WORDS]


def support(text: str, source: str) -> float:
    """Share of the text's content words that stand in the source; 1.0 for a text without any."""
    words = content_words(text)
    known = set(content_words(source))
    return sum(word in known for word in words) / len(words) if words else 1.0


def incomplete(row: Row, rules: Rules) -> Reason:
    return row["fault"]


def wrong_length(row: Row, rules: Rules) -> Reason:
    for column, (least, most) in (("question", rules.question_words), ("answer", rules.answer_words)):
        words = len(row[column].split())
        if not least <= words <= most:
            return f"{column} has {words} words, not {least} to {most}"
    return None


def leaked_tag(row: Row, rules: Rules) -> Reason:
    found = _LEAKED_TAG.search(row["question"]) or _LEAKED_TAG.search(row["answer"])
    return f"prompt markup {found.group().strip()!r}" if found else None


def refusal(row: Row, rules: Rules) -> Reason:
    found = _REFUSAL.search(row["answer"])
    return f"refusal {found.group()!r}" if found else None


def points_at_source(row: Row, rules: Rules) -> Reason:
    if row["kind"] != "knowledge":
        return None
    found = _POINTS_AT_SOURCE.search(row["question"]) or _POINTS_AT_SOURCE.search(row["answer"])
    return f"{found.group()!r} means nothing without the source" if found else None


def no_question(row: Row, rules: Rules) -> Reason:
    return "question lacks its '?'" if rules.question_mark and not row["question"].endswith("?") else None


def cut_off(row: Row, rules: Rules) -> Reason:
    found = _OPEN_END.search(row["answer"])
    return f"answer ends in {found.group().strip()!r}" if found else None


def repetitive(row: Row, rules: Rules) -> Reason:
    """Small models fall into loops: the same three words again and again."""
    words = row["answer"].casefold().split()
    triples = list(zip(words, words[1:], words[2:], strict=False))
    return "answer repeats itself" if len(triples) - len(set(triples)) > max(1, len(triples) // 5) else None


def uninformative(row: Row, rules: Rules) -> Reason:
    if not rules.informative or row["kind"] != "knowledge":
        return None
    news = set(content_words(row["answer"])) - set(content_words(row["question"]))
    return None if news else "answer only repeats the question"


def unsupported_answer(row: Row, rules: Rules) -> Reason:
    if rules.answer_support is None:
        return None
    source = f"{row['support'] or ''} {row['question']}"
    if row["kind"] == "knowledge":
        news = [word for word in content_words(row["answer"]) if word not in content_words(row["question"])]
        missing = [word for word in news if word not in content_words(row["support"] or "")]
        if missing:
            return f"{missing[0]!r} is not in the source"
    found = support(row["answer"], source)
    return None if found >= rules.answer_support else f"{found:.0%} of the answer's words are supported"


def unsupported_question(row: Row, rules: Rules) -> Reason:
    if rules.question_support is None or not row["support"]:
        return None
    found = support(row["question"], row["support"])
    return None if found >= rules.question_support else f"{found:.0%} of the question's words are in the source"


def other_language(row: Row, rules: Rules) -> Reason:
    text = _without_names(f"{row['question']} {row['answer']}")
    expected = row.get("language")
    if not rules.language or not expected or len(_WORD.findall(text)) < _LANGUAGE_WORDS:
        return None
    probability = language_probability(text, expected)
    return None if probability >= _LANGUAGE_FLOOR else f"probability of {expected} is {probability:.2f}"


@cache
def _detector() -> Any:
    from lingua import LanguageDetectorBuilder

    return LanguageDetectorBuilder.from_all_languages().with_low_accuracy_mode().build()


def _without_names(text: str) -> str:
    """The text without its capitalised words: invented names, of which leaves are full, look like any language."""
    return " ".join(word for word in text.split() if not re.sub(r"^\W+", "", word)[:1].isupper())


def main_language(texts: list[str]) -> str | None:
    """The language that the texts together are most probably in (English name), None if that is unclear."""
    text = "\n".join(map(_without_names, texts))
    found = _detector().detect_language_of(text) if len(_WORD.findall(text)) >= _LEAF_WORDS else None
    return found.name.capitalize() if found else None


def language_probability(text: str, language: str) -> float:
    for value in _detector().compute_language_confidence_values(text):
        if value.language.name.capitalize() == language:
            return float(value.value)
    return 0.0


RULES: tuple[Callable[[Row, Rules], Reason], ...] = (
    incomplete,
    wrong_length,
    leaked_tag,
    refusal,
    points_at_source,
    no_question,
    cut_off,
    repetitive,
    uninformative,
    unsupported_answer,
    unsupported_question,
    other_language,
)


def question_identity(row: Row) -> str:
    """What makes two rows of a leaf duplicates: the same question on the same context."""
    return f"{normalised(row['question'])}\n{normalised(row['context'] or '')}"
