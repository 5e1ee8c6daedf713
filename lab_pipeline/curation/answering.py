"""Whether a sentence answers the question that was written about it, by the wording of both.

For rows whose answer is their source as it stands; other answers say by themselves what was asked. English only: a question
without an English question word passes.
"""

from __future__ import annotations

import re

from lab_pipeline.curation.profile import Profile, Reason, Row
from lab_pipeline.flows.flow import Rules
from lab_pipeline.text.words import QUESTION_MARKS, content_words, names, numbers

_QUESTION_WORD = re.compile(r"\b(?:who|whom|whose|what|which|when|where|why|how)\b", re.IGNORECASE)
_NO_VERB = re.compile(r"\b(?:at|by|for|from|in|of|on|to|with) (?:what|which) \w+\W*$", re.IGNORECASE)
_OPENS = rf"(?:^|[,.:;!{QUESTION_MARKS}] |\b(?:and|or|in|on|at|by|from|for|to|of|with|since|until|after) )"
"""Before a question word; elsewhere 'when' and 'where' only join."""
_ASKED = re.compile(
    rf"{_OPENS}(?:(?P<person>who|whose)|(?P<number>how (?:many|much|old|long|deep|wide|high|tall|far|heavy|big))|"
    r"(?P<time>when|(?:what|which) (?:year|day|date|month))|(?P<place>where)|(?P<reason>why)|"
    r"(?P<manner>how (?:do|does|did|is|are|was|were)))\b",
    re.IGNORECASE,
)
_MONTHS = "january|february|march|april|may|june|july|august|september|october|november|december"
_ANSWER_MARKS = {
    kind: re.compile(rf"\b(?:{words})\b", re.IGNORECASE)
    for kind, words in {
        "time": rf"\w+day|{_MONTHS}|spring|summer|autumn|winter|morning|noon|afternoon|evening|night|midnight|dusk|dawn|"
        r"sunset|sunrise|after|before|during|every|each|while|when|once|until|as soon as|today|tomorrow|yearly",
        "place": "in|inside|at|on|near|beside|from|to|above|below|under|behind|between|along|around|through",
        "reason": "because|since|so that|in order|due to|for|reason|causes?|caused|to",
        "manner": "by|with|using|through",
    }.items()
}
_NAMED = re.compile(r"\b(?:called|name[sd]?|known as)\b", re.IGNORECASE)

_ONE = re.compile(r"\b(?:one|once|1)\b", re.IGNORECASE)
_BY_SOMEBODY = re.compile(r"\bby (?!\w+ing\b)", re.IGNORECASE)
_MODALS = {"can", "could", "may", "might", "must", "shall", "should", "will", "would"}

_DOES = re.compile(r"\bdoes (?P<rest>.*)", re.IGNORECASE)
_ANY_VERB = {"do", "have", "mean"}

_PARTICIPLE = (
    r"(?:\w+ed|built|cut|done|drawn|found|given|grown|held|kept|known|left|made|meant|paid|put|said|sent|set|sold|taken|told|"
    r"worn|written)"
)
_WHAT_IS = re.compile(
    rf"(?:^|[.!,:{QUESTION_MARKS}] )what(?:[’']s| is| are| was| were) (?P<thing>[^{QUESTION_MARKS}]*)", re.IGNORECASE
)
_WHAT_IS_DONE = re.compile(rf"^{_PARTICIPLE}\b|\b{_PARTICIPLE}(?: \w+)?$|\b(?:for|from|like)$", re.IGNORECASE)
_IS = re.compile(rf"\b(?:is|are|was|were) (?!(?:{_PARTICIPLE}|\w+ing)\b)|\b(?:called|named|known as)\b", re.IGNORECASE)
_CLAUSE = re.compile(r" (?:where|when|which|who|that) ")
_BEYOND_NOUN = re.compile(r" (?:of|in|on|at|for|from|to|with|without|under|by|where|when|which|who|that) ")
_PROPERTY = re.compile(
    r"(?:\w+ ){0,3}(?:age|amount|capacity|colou?r|cost|date|depth|distance|duration|fare|function|height|job|length|location|"
    r"material|meaning|name|number|penalty|place|price|prize|purpose|reason|result|reward|role|rule|shape|size|speed|symbol|"
    r"task|temperature|time|title|use|value|weight|width|year)s?\b",
    re.IGNORECASE,
)


def _answered_with_its_source(row: Row) -> bool:
    return bool(row["support"]) and row["answer"] == row["support"]


def general_question(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """A question that could be asked about any sentence, or says all of its own."""
    if rules.question_names is None or not _answered_with_its_source(row):
        return None
    telling = set(content_words(row["support"])) - leaf.subject
    named = telling & set(content_words(row["question"]))
    if telling and telling == named:
        return "the question says all that its sentence tells"
    if not telling or len(named) >= rules.question_names * len(telling):
        return None
    return f"the question names {len(named)} of the {len(telling)} words that tell its sentence from others"


def unanswered(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """A question that misspells or invents a name; one for a name, number, time, place, reason or manner of which its sentence
    has none; one whose verb is not the sentence's; one for what a thing is, where the sentence says what it does."""
    if not rules.sentence_answers or not _answered_with_its_source(row):
        return None
    question, sentence = row["question"], row["answer"]
    if not _QUESTION_WORD.search(question):
        return None
    if _NO_VERB.search(question):
        return "the question ends before it asks anything"
    for name in names(question):
        if not set(content_words(name)) <= leaf.topics:
            return f"the question's {name!r} stands nowhere in the leaf"
    for kind in {found.lastgroup or "" for found in _ASKED.finditer(question)}:
        if not _tells(kind, sentence, question, leaf):
            return f"the question asks for a {kind}, which its sentence does not tell"
    if _NAMED.search(question) and not _NAMED.search(sentence):
        return "the question asks for a name, of which its sentence says nothing"
    if (does := _DOES.search(question)) and not _verb(does["rest"], sentence):
        return "the question's verb is not its sentence's"
    if (what := _WHAT_IS.search(question)) and not _says_what_is(what["thing"].strip(), sentence):
        return "the question asks what something is, and its sentence says what it does"
    return None


def _tells(kind: str, sentence: str, question: str, leaf: Profile) -> bool:
    if kind == "person":
        asked = leaf.subject.union(content_words(question))
        return bool(_BY_SOMEBODY.search(sentence)) or any(not set(content_words(name)) <= asked for name in names(sentence))
    counted = bool(numbers(sentence) - numbers(question))
    if kind == "number":
        return counted or bool(_ONE.search(sentence))
    return bool(_ANSWER_MARKS[kind].search(sentence)) or (kind == "time" and counted)


def _verb(asked: str, sentence: str) -> bool:
    """Whether one of the words after 'does' is a verb of the sentence, there in the third person or after a modal."""
    told = set(re.findall(r"\w+", sentence.casefold()))
    words = re.findall(r"\w+", asked.casefold())
    forms = {form for word in words for form in (f"{word}s", f"{word}es", f"{word[:-1]}ies")}
    return not _ANY_VERB.isdisjoint(words) or not forms.isdisjoint(told) or not _MODALS.isdisjoint(told)


def _says_what_is(thing: str, sentence: str) -> bool:
    """Whether a sentence can answer 'What is ...?': it says what the thing is, or what it does or has done to it where that is
    asked. Properties, such as a width, may be told in other words."""
    if re.search(r"\d", thing):
        return False
    if _WHAT_IS_DONE.search(thing):
        return not _NAMED.search(sentence) or bool(_NAMED.search(thing))
    if _PROPERTY.match(thing):
        return True
    told = set(re.findall(r"\w+", sentence.casefold()))
    if {form for word in re.findall(r"\b(\w+)ing\b", thing.casefold()) for form in (word, f"{word}s", f"{word}es")} & told:
        return True
    said = _CLAUSE.split(sentence)[0]
    noun = set(content_words(_BEYOND_NOUN.split(thing)[0]))
    return bool(_IS.search(said)) and not noun.isdisjoint(content_words(said))
