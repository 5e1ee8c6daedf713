"""Reject rows whose answer was taken from the source word for word, and does not answer the question.

Other answers pass, since the teacher wrote them for their question. `unanswered` knows English only: it passes a question
without an English question word.
"""

import re

from lab_pipeline.curation.profile import Profile, Reason, Row
from lab_pipeline.flows.flow import Rules
from lab_pipeline.text.words import QUESTION_MARKS, content_words, names, numbers

# Which kind of thing does the question ask for, and does the sentence have it?
_QUESTION_WORD = re.compile(r"\b(?:who|whom|whose|what|which|when|where|why|how)\b", re.IGNORECASE)
_CUT_OFF = re.compile(r"\b(?:at|by|for|from|in|of|on|to|with) (?:what|which) \w+\W*$", re.IGNORECASE)
_OPENS = rf"(?:^|[,.:;!{QUESTION_MARKS}] |\b(?:and|or|in|on|at|by|from|for|to|of|with|since|until|after) )"
"""What stands before a question word that asks. Anywhere else, 'when' and 'where' are conjunctions."""
_KIND_ASKED = re.compile(
    rf"{_OPENS}(?:(?P<person>who|whose)|(?P<number>how (?:many|much|old|long|deep|wide|high|tall|far|heavy|big))|"
    r"(?P<time>when|(?:what|which) (?:year|day|date|month))|(?P<place>where)|(?P<reason>why)|"
    r"(?P<manner>how (?:do|does|did|is|are|was|were)))\b",
    re.IGNORECASE,
)
_MONTHS = "january|february|march|april|may|june|july|august|september|october|november|december"
_SIGNS_OF_KIND = {
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
"""'One' answers 'how many?' too, but `numbers` leaves it out."""
_BY_SOMEBODY = re.compile(r"\bby (?!\w+ing\b)", re.IGNORECASE)

# Is the verb of 'What does ... do?' a verb of the sentence?
_MODALS = {"can", "could", "may", "might", "must", "shall", "should", "will", "would"}

_DOES = re.compile(r"\bdoes (?P<rest>.*)", re.IGNORECASE)
_ANY_VERB = {"do", "have", "mean"}
"""Verbs that a question may use for any verb of a sentence."""

# Does the sentence say what a thing is, as 'What is ...?' asks?
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
_AFTER_NOUN = re.compile(r" (?:of|in|on|at|for|from|to|with|without|under|by|where|when|which|who|that) ")
_PROPERTY = re.compile(
    r"(?:\w+ ){0,3}(?:age|amount|capacity|colou?r|cost|date|depth|distance|duration|fare|function|height|job|length|location|"
    r"material|meaning|name|number|penalty|place|price|prize|purpose|reason|result|reward|role|rule|shape|size|speed|symbol|"
    r"task|temperature|time|title|use|value|weight|width|year)s?\b",
    re.IGNORECASE,
)
"""Properties, such as a width, which a sentence may state without their name."""


def _is_extracted(row: Row) -> bool:
    return bool(row["support"]) and row["answer"] == row["support"]


def general_question(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """Reject questions that name less than the share `rules.question_names` of the words that distinguish their sentence, and
    questions that name all these words, so that nothing is left to answer.

    The distinguishing words are the content words of the sentence without those of the leaf's description.
    """
    if rules.question_names is None or not _is_extracted(row):
        return None
    specific = set(content_words(row["answer"])) - leaf.subject
    named = specific & set(content_words(row["question"]))
    if specific and specific == named:
        return "the question says all that its sentence says"
    if not specific or len(named) >= rules.question_names * len(specific):
        return None
    return f"the question names {len(named)} of the {len(specific)} words that distinguish its sentence"


def unanswered(row: Row, rules: Rules, leaf: Profile) -> Reason:
    """Reject questions that the sentence given as their answer does not answer.

    Such a question breaks off; has a proper name that occurs nowhere in the leaf; asks for a person, name, number, time, place,
    reason or manner that the sentence lacks; asks with 'does' and a verb that the sentence lacks; or asks what a thing is,
    while the sentence says what the thing does.
    """
    if not rules.sentence_answers or not _is_extracted(row):
        return None
    question, sentence = row["question"], row["answer"]
    if not _QUESTION_WORD.search(question):
        return None
    if _CUT_OFF.search(question):
        return "the question ends before it asks anything"
    for name in names(question):
        if not set(content_words(name)) <= leaf.topics:
            return f"the question's {name!r} occurs nowhere in the leaf"
    for kind in {found.lastgroup or "" for found in _KIND_ASKED.finditer(question)}:
        if not _has_kind(kind, sentence, question, leaf):
            return f"the question asks for a {kind}, which its sentence does not have"
    if _NAMED.search(question) and not _NAMED.search(sentence):
        return "the question asks for a name, which its sentence does not have"
    if (does := _DOES.search(question)) and not _has_verb(does["rest"], sentence):
        return "the question has another verb than its sentence"
    if (what := _WHAT_IS.search(question)) and not _says_what_is(what["thing"].strip(), sentence):
        return "the question asks what something is, but its sentence says what it does"
    return None


def _has_kind(kind: str, sentence: str, question: str, leaf: Profile) -> bool:
    """Tell whether a sentence has the kind of thing that is asked for. Persons and numbers that the question names do not
    count, nor do persons that the leaf's description names."""
    if kind == "person":
        known = leaf.subject.union(content_words(question))
        return bool(_BY_SOMEBODY.search(sentence)) or any(not set(content_words(name)) <= known for name in names(sentence))
    has_number = bool(numbers(sentence) - numbers(question))
    if kind == "number":
        return has_number or bool(_ONE.search(sentence))
    return bool(_SIGNS_OF_KIND[kind].search(sentence)) or (kind == "time" and has_number)


def _has_verb(after_does: str, sentence: str) -> bool:
    """Tell whether a sentence can have the verb of the question: it has the third person of a word after 'does', or has a
    modal, or the question's verb is one of `_ANY_VERB`."""
    in_sentence = set(re.findall(r"\w+", sentence.casefold()))
    words = re.findall(r"\w+", after_does.casefold())
    forms = {form for word in words for form in (f"{word}s", f"{word}es", f"{word[:-1]}ies")}
    return not (_ANY_VERB.isdisjoint(words) and forms.isdisjoint(in_sentence) and _MODALS.isdisjoint(in_sentence))


def _says_what_is(thing: str, sentence: str) -> bool:
    """Tell whether a sentence can answer 'What is THING?'. If the question asks for a property, or what is done to a thing,
    nearly any sentence can; otherwise the sentence must say what the thing is, or have the verb of its '-ing' form."""
    if re.search(r"\d", thing):
        return False
    if _WHAT_IS_DONE.search(thing):
        return not _NAMED.search(sentence) or bool(_NAMED.search(thing))
    if _PROPERTY.match(thing):
        return True
    in_sentence = set(re.findall(r"\w+", sentence.casefold()))
    stems = re.findall(r"\b(\w+)ing\b", thing.casefold())  # 'What is the weaver holding?' - 'holds'
    if not in_sentence.isdisjoint(form for stem in stems for form in (stem, f"{stem}s", f"{stem}es")):
        return True
    main_clause = _CLAUSE.split(sentence)[0]
    noun = set(content_words(_AFTER_NOUN.split(thing)[0]))
    return bool(_IS.search(main_clause)) and not noun.isdisjoint(content_words(main_clause))
