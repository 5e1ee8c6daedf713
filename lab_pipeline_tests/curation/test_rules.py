"""The rules one by one, on the rows that stand here and in the tests of each rule's module, and all together."""

from __future__ import annotations

from typing import Any

import pytest

from lab_pipeline.curation.profile import profile
from lab_pipeline.curation.rules import RULES, applicable, wrong_length
from lab_pipeline.flows.flow import Rules, load_flow
from lab_pipeline.instructions.generate import supporting_sentence
from lab_pipeline.taxonomy.leaf import find_leaves
from lab_pipeline_tests.curation import test_answering, test_language, test_support, test_wording
from lab_pipeline_tests.curation.rows import (
    LEAF,
    LOOM,
    NAMING,
    NOTES,
    POLITE,
    POLITE_LEAF,
    STRICT,
    TAXONOMY,
    answer,
    frozen_source,
    row,
    skill,
)

REJECTED = {
    "no_reply": [row(fault="the teacher gave no answer: it refused: no", question=None, answer=None)],
    "incomplete": [
        row(fault="answer empty"),
        row(fault="question cut off at 40 tokens", question=None, answer=None),
        row(answer=None),
        row(answer=" \n"),
        row(answer="..."),
        row(answer="\u200b"),
        row(question="?"),
    ],
    "wrong_length": [
        row(question="Why so?"),
        row(question="What " * 16 + "?"),
        answer("walnut and oak " * 11),
    ],
    **test_wording.REJECTED,
    **test_language.REJECTED,
    **test_support.REJECTED,
    **test_answering.REJECTED,
}
"""For each rule, rows that break this one and none before it."""

KEPT = {
    "no_reply": [row(), answer("Walnut.")],
    "incomplete": [row(), answer("Walnut.")],
    "wrong_length": [
        row(question="Frame of what?", support="Frame of the loom is made of walnut wood."),
        answer("Walnut"),
    ],
    **test_wording.KEPT,
    **test_language.KEPT,
    **test_support.KEPT,
    **test_answering.KEPT,
}
"""For each rule, rows near to those it rejects that break no rule at all."""


def first_broken(given: dict[str, Any], near: str) -> tuple[str, str] | None:
    """The first rule that a row near to one of them breaks, and the reason."""
    thresholds = NAMING if near in ("general_question", "unanswered") else STRICT
    freeform = given["kind"] == "freeform_skill"
    if freeform:
        thresholds = thresholds.model_copy(update={"answer_support": None, "question_mark": False})
    for rule in RULES:
        reason = rule(given, thresholds, POLITE_LEAF if freeform else LEAF)
        if reason:
            return rule.__name__, reason
    return None


def test_every_rule_has_rows_that_it_rejects_and_rows_that_it_keeps() -> None:
    assert sorted(REJECTED) == sorted(KEPT) == sorted(rule.__name__ for rule in RULES)
    assert all(REJECTED.values()) and all(KEPT.values())


@pytest.mark.parametrize(("rule", "given"), [(rule, given) for rule, rows in REJECTED.items() for given in rows])
def test_a_row_is_rejected_by_the_rule_it_breaks(rule: str, given: dict[str, Any]) -> None:
    broken = first_broken(given, rule)
    assert broken is not None
    assert broken[0] == rule
    assert broken[1].strip()


@pytest.mark.parametrize(("rule", "given"), [(rule, given) for rule, rows in KEPT.items() for given in rows])
def test_a_row_near_a_rule_is_kept(rule: str, given: dict[str, Any]) -> None:
    assert first_broken(given, rule) is None


OFF = Rules(
    question_words=(0, 999),
    answer_words=(0, 999),
    answer_support=None,
    question_support=None,
    question_names=None,
    on_topic=None,
    grounding=None,
    facts=False,
    question_mark=False,
    informative=False,
    language=False,
)


@pytest.mark.parametrize(
    "rule",
    [
        "wrong_length",
        "no_question",
        "other_language",
        "uninformative",
        "unsupported_fact",
        "contradiction",
        "unsupported_answer",
        "unsupported_question",
        "general_question",
        "unanswered",
        "off_topic",
        "ungrounded",
    ],
)
def test_a_rule_with_a_threshold_can_be_switched_off(rule: str) -> None:
    (check,) = (each for each in RULES if each.__name__ == rule)
    assert [check(given, OFF, LEAF) for given in REJECTED[rule]] == [None] * len(REJECTED[rule])


@pytest.mark.parametrize("key", find_leaves(TAXONOMY))
def test_the_shipped_seeds_break_no_rule_of_the_flows_they_teach(key: str) -> None:
    """But for a threshold: what stands there as a model for the teacher cannot be wrong when the teacher writes it."""
    source = frozen_source(key)
    leaf, thresholds = profile(source), load_flow(f"simple_{source['kind']}", source["kind"]).file.rules
    assert leaf.language == "English"
    broken = []
    for seed in source["seeds"]:
        knowledge = source["kind"] == "knowledge"
        support = supporting_sentence(seed["context"], seed) if knowledge else seed["context"]
        given = {**seed, "kind": source["kind"], "support": support, "fault": None, "grounding": None}
        for rule in applicable(source, thresholds, leaf):
            if rule.__name__ != "unsupported_answer" and (reason := rule(given, thresholds, leaf)):
                broken.append((seed["question"], rule.__name__, reason))
    assert broken == []


def without(source: dict[str, Any], rules: Rules = STRICT) -> list[str]:
    """Names of the rules that do not hold for a leaf."""
    kept = applicable(source, rules, profile(source))
    return [rule.__name__ for rule in RULES if rule not in kept]


def test_what_a_fifth_of_the_seeds_do_is_the_leafs_way() -> None:
    markup = {"question": "Make it bold: walnut wood", "answer": "<b>walnut wood</b>", "context": None}
    assert without({**POLITE, "seeds": [*POLITE["seeds"][:5], markup]}, Rules()) == []
    assert without({**POLITE, "seeds": [*POLITE["seeds"][:4], markup]}, Rules()) == ["leaked_tag"]


def test_a_leaf_whose_phrases_end_in_prepositions_keeps_the_other_rules_on_ends() -> None:
    phrasal = {"question": "List a synonym for attend", "answer": "take part in", "context": None}
    assert without({**POLITE, "seeds": [*POLITE["seeds"][:4], phrasal]}, Rules()) == ["open_preposition"]


def test_seeds_of_signs_alone_break_nothing_unexpected() -> None:
    signs = {"question": "Which sign adds?", "answer": "+", "context": None}
    assert without({**POLITE, "seeds": [*POLITE["seeds"][:5], signs]}, Rules()) == []


def test_knowledge_rests_on_its_documents_whatever_its_seeds_do() -> None:
    made_up = [{**seed, "answer": "It is 7 years old."} for seed in LOOM["seeds"]]
    assert without({**LOOM, "seeds": made_up}) == []
    assert {"unsupported_fact", "unsupported_answer"} <= set(without({**NOTES, "seeds": made_up}))


def test_words_of_scripts_without_spaces_count_by_character() -> None:
    chinese = row(question="这台织布机是什么做的呢?", answer="胡桃木")
    assert wrong_length(chinese, STRICT, LEAF) is None
    assert wrong_length({**chinese, "answer": "胡桃木" * 11}, STRICT, LEAF) == "answer has 33 words, not 1 to 30"


def test_what_is_as_short_or_long_as_a_seed_has_the_right_length() -> None:
    seeds = [{"question": "Is Otto one?", "answer": "Yes", "context": None}, {**POLITE["seeds"][0], "answer": "very " * 40}]
    leaf, thresholds = profile({**POLITE, "seeds": seeds}), STRICT.model_copy(update={"answer_words": (2, 30)})
    assert [wrong_length(skill(answer=text), thresholds, leaf) for text in ("No", "so " * 40)] == [None, None]
    assert wrong_length(skill(answer="so " * 41), thresholds, leaf) == "answer has 41 words, not 1 to 40"
    assert wrong_length(skill(answer="No"), thresholds, POLITE_LEAF) == "answer has 1 words, not 2 to 30"
