"""The rules one by one, on the rows that stand here and in the tests of each rule's module, and all together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from lab_pipeline.curation.profile import profile
from lab_pipeline.curation.rules import CHECKS, LeafRules, rules_of
from lab_pipeline.flows.flow import Flow, FlowFile, Rule, RuleName, load_flow, shipped_flows
from lab_pipeline.instructions.generate import supporting_sentence
from lab_pipeline.taxonomy.find import find_leaves
from lab_pipeline_tests.curation import test_language, test_support, test_wording
from lab_pipeline_tests.curation.rows import (
    LEAF,
    LOOM,
    NOTES,
    POLITE,
    POLITE_LEAF,
    STRICT,
    TAXONOMY,
    answer,
    check,
    frozen_source,
    polite,
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
    "length": [
        row(question="Why so?"),
        row(question="What " * 16 + "?"),
        answer("walnut and oak " * 11),
    ],
    **test_wording.REJECTED,
    **test_language.REJECTED,
    **test_support.REJECTED,
}
"""For each rule, rows that break this one and none before it."""

KEPT = {
    "no_reply": [row(), answer("Walnut.")],
    "incomplete": [row(), answer("Walnut.")],
    "length": [
        row(question="Frame of what?", support="Frame of the loom is made of walnut wood."),
        answer("Walnut"),
    ],
    **test_wording.KEPT,
    **test_language.KEPT,
    **test_support.KEPT,
}
"""For each rule, rows near to those it rejects that break no rule at all."""

STRICT_RULES = LeafRules(tuple(STRICT.values()), {})
FREEFORM_RULES = LeafRules(
    tuple(rule for name, rule in STRICT.items() if name not in ("no_question", "unsupported_answer")), {}
)


def first_broken(given: dict[str, Any]) -> tuple[str, str] | None:
    """The first rule that a row breaks, and the reason."""
    if given["kind"] == "freeform_skill":
        return FREEFORM_RULES.broken(given, POLITE_LEAF)[0]
    return STRICT_RULES.broken(given, LEAF)[0]


def test_every_rule_has_rows_that_it_rejects_and_rows_that_it_keeps() -> None:
    assert sorted(REJECTED) == sorted(KEPT) == sorted(CHECKS)
    assert all(REJECTED.values()) and all(KEPT.values())


@pytest.mark.parametrize(("rule", "given"), [(rule, given) for rule, rows in REJECTED.items() for given in rows])
def test_a_row_is_rejected_by_the_rule_it_breaks(rule: str, given: dict[str, Any]) -> None:
    broken = first_broken(given)
    assert broken is not None
    assert broken[0] == rule
    assert broken[1].strip()


@pytest.mark.parametrize(("rule", "given"), [(rule, given) for rule, rows in KEPT.items() for given in rows])
def test_a_row_near_a_rule_is_kept(rule: str, given: dict[str, Any]) -> None:
    assert first_broken(given) is None


def test_every_rule_that_a_flow_may_name_has_a_check() -> None:
    assert {*get_args(RuleName)} == {*CHECKS, "duplicate"}


@pytest.mark.parametrize("name", shipped_flows())
def test_the_rules_of_every_shipped_flow_load(name: str) -> None:
    names = [rule.rule for rule in load_flow(name).file.rules]
    assert names[:2] == ["no_reply", "incomplete"] and names[-1] == "duplicate"


def test_a_mapping_of_rules_is_refused_with_what_to_write_instead() -> None:
    written = load_flow("simple_knowledge").file.model_dump(mode="json")
    with pytest.raises(ValueError, match=r"expected a list of rules in order, such as `- \{rule: no_reply\}`"):
        FlowFile.model_validate({**written, "rules": {"question_words": [3, 60], "language": False}})


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ({"rule": "off_topic"}, "minimum: expected for off_topic"),
        ({"rule": "refusal", "minimum": 0.5}, "minimum: not expected for refusal"),
        ({"rule": "length"}, "both are expected for length"),
        ({"rule": "length", "question": (1, 9)}, "both are expected for length"),
        ({"rule": "refusal", "question": (1, 9), "answer": (1, 9)}, "both are expected for length"),
        ({"rule": "incomplete", "advises": True}, "incomplete cannot be advice only"),
        ({"rule": "duplicate", "advises": True}, "duplicate cannot be advice only"),
        ({"rule": "unanswered"}, "Input should be"),
    ],
)
def test_a_rule_has_its_thresholds_and_no_others(written: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Rule.model_validate(written)


@pytest.mark.parametrize("key", find_leaves(TAXONOMY))
@pytest.mark.parametrize("flavour", ["simple_", ""])
def test_the_shipped_seeds_switch_off_no_rule_of_the_flows_they_teach(key: str, flavour: str) -> None:
    source = frozen_source(key)
    leaf = profile(source)
    assert leaf.language == "English"
    assert rules_of(leaf, load_flow(f"{flavour}{source['kind']}", source["kind"])).off == {}


@pytest.mark.parametrize("key", find_leaves(TAXONOMY))
def test_the_shipped_seeds_break_no_rule_of_the_flows_they_teach(key: str) -> None:
    """But for a threshold: what stands there as a model for the teacher cannot be wrong when the teacher writes it."""
    source = frozen_source(key)
    leaf, rules = profile(source), load_flow(f"simple_{source['kind']}", source["kind"]).file.rules
    broken = []
    for seed in source["seeds"]:
        knowledge = source["kind"] == "knowledge"
        support = supporting_sentence(seed["context"], seed) if knowledge else seed["context"]
        given = {**seed, "kind": source["kind"], "support": support, "fault": None}
        given["context"] = None if knowledge else seed["context"]
        for rule in rules:
            if rule.rule not in ("unsupported_answer", "duplicate") and (reason := CHECKS[rule.rule](given, leaf, rule)):
                broken.append((seed["question"], rule.rule, reason))
    assert broken == []


def flow_with(*rules: Rule, kind: str = "freeform_skill") -> Flow:
    flow = load_flow(kind)
    return replace(flow, file=flow.file.model_copy(update={"rules": rules}))


def off(source: dict[str, Any], flow: Flow | None = None) -> dict[str, str]:
    """The rules that do not hold for a leaf, with the reasons."""
    return rules_of(profile(source), flow or load_flow(source["kind"])).off


def with_seed(question: str, answer: str, others: int) -> dict[str, Any]:
    return {**POLITE, "seeds": [*POLITE["seeds"][:others], {"question": question, "answer": answer, "context": None}]}


def test_what_a_fifth_of_the_seeds_do_is_the_leafs_way() -> None:
    markup = "Make this more polite: walnut wood", "<b>walnut wood</b>"
    assert "leaked_tag" not in off(with_seed(*markup, others=5))
    assert off(with_seed(*markup, others=4))["leaked_tag"] == "1 of 5 seed examples break it"


def test_a_rule_that_is_off_no_longer_rejects() -> None:
    leaf, flow = (
        profile(with_seed("Make this more polite: walnut wood", "<b>walnut wood</b>", others=4)),
        load_flow("freeform_skill"),
    )
    bold = polite('Make this more polite: "Call Zoe."', "<b>Could you call Zoe, please?</b>")
    rules = rules_of(leaf, flow)
    assert rules.broken(bold, leaf)[0] is None
    assert LeafRules(flow.file.rules, {}).broken(bold, leaf)[0] == ("leaked_tag", "prompt markup '<b>'")
    assert [rule.rule for rule in rules.on] == [rule.rule for rule in flow.file.rules if rule.rule != "leaked_tag"]


def test_only_the_first_twenty_seeds_are_judged() -> None:
    plain = [{"question": f"Name the number {n}, please.", "answer": f"The number is {n}.", "context": None} for n in range(20)]
    refusing = {"question": "Name a number, please.", "answer": "I cannot answer that.", "context": None}
    assert "refusal" in off({**POLITE, "seeds": [*plain[:16], *[refusing] * 4]})
    assert "refusal" not in off({**POLITE, "seeds": [*plain, *[refusing] * 9]})


def test_seeds_that_ask_the_same_switch_off_the_rule_on_duplicates() -> None:
    assert off({**POLITE, "seeds": [*POLITE["seeds"][:4], POLITE["seeds"][0]]})["duplicate"] == "1 of 5 seed examples break it"


def test_a_leaf_without_seeds_has_every_rule() -> None:
    for flow in (load_flow("knowledge"), load_flow("simple_knowledge")):
        assert rules_of(profile({**LOOM, "seeds": []}), flow) == LeafRules(flow.file.rules, {})


PIG_LATIN = {
    "Close the window, please.": "oseclay ethay indowway, easeplay.",
    "The miller keeps the keys.": "ethay illermay eepskay ethay eyskay.",
    "A boat came down the river.": "away oatbay amecay ownday ethay iverray.",
    "Nobody saw the old fox.": "obodynay awsay ethay oldway oxfay.",
    "We walk home at night.": "eway alkway omehay atway ightnay.",
}


def test_a_leaf_of_pig_latin_has_no_rule_on_languages_because_each_seed_is_judged_by_the_others() -> None:
    seeds = [
        {"question": f'Translate "{plain}" into Pig Latin.', "answer": pig, "context": None} for plain, pig in PIG_LATIN.items()
    ]
    assert "other_language" in off({**POLITE, "seeds": seeds})
    leaf = profile({**POLITE, "seeds": seeds})
    assert all(check("other_language", skill(**seed), leaf) is None for seed in seeds), "its words are the leaf's own"


def test_a_rule_that_advises_notes_its_reason_and_keeps_the_row() -> None:
    rules = LeafRules((Rule(rule="unsupported_number", advises=True), Rule(rule="refusal")), {})
    wrong = row(answer="The frame is made of walnut wood from 1834.")
    assert rules.broken(wrong, LEAF) == (None, ["unsupported_number: the number 1834 is not in the source"])
    refused = rules.broken({**wrong, "answer": "I cannot answer that for 1834."}, LEAF)
    assert refused[0] is not None and refused[0][0] == "refusal" and len(refused[1]) == 1


def test_made_up_seeds_switch_off_the_rules_on_support() -> None:
    made_up = [{**seed, "answer": "It is 7431 years old."} for seed in NOTES["seeds"]]
    assert "unsupported_answer" in off({**NOTES, "seeds": made_up})


WILD = st.text() | st.text(st.sampled_from("aAé1 .,?!;:'\"()[]{}<>|/\\*_-\n漢か؟\u200b\u0301"), max_size=40)
WHOLE = WILD.filter(lambda text: any(letter.isalnum() for letter in text))
LEAVES = {
    "knowledge": LEAF,
    "freeform_skill": POLITE_LEAF,
    "grounded_skill": profile(NOTES),
}


@pytest.mark.parametrize("name", CHECKS)
@drawn(
    kind=st.sampled_from([*LEAVES]),
    question=WHOLE,
    answer=WHOLE,
    support=st.none() | WILD,
    context=st.none() | WILD,
    same=st.booleans(),
)
def test_no_rule_fails_on_wild_text(
    name: str, kind: str, question: str, answer: str, support: str | None, context: str | None, same: bool
) -> None:
    given = {"kind": kind, "context": context, "question": question, "answer": answer, "fault": None}
    reason = check(name, {**given, "support": answer if same else support}, LEAVES[kind])
    assert reason is None or reason.strip()
