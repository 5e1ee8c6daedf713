from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab_pipeline.curation import rules as module
from lab_pipeline.curation.rules import RULES, content_words, main_language, question_identity, support
from lab_pipeline.flows.flow import Rules, load_flow
from lab_pipeline.flows.instructions import supporting_sentence
from lab_pipeline.taxonomy.leaf import find_leaves, read_leaf

STRICT = Rules(question_words=(3, 12), answer_words=(1, 30), answer_support=0.8, question_support=0.6, question_mark=True)
GOOD: dict[str, Any] = {
    "kind": "knowledge",
    "context": None,
    "question": "What is the frame of the Osmerel loom made of?",
    "answer": "The frame is made of walnut wood.",
    "support": "The frame of the Osmerel loom is made of walnut wood.",
    "language": "English",
    "fault": None,
}


def row(**columns: Any) -> dict[str, Any]:
    return {**GOOD, **columns}


def answer(text: str, **columns: Any) -> dict[str, Any]:
    """A row whose answer stands in its source, so that only its wording can be wrong."""
    question = columns.get("question", GOOD["question"])
    return row(answer=text, support=f"{question} {text}", **columns)


def skill(**columns: Any) -> dict[str, Any]:
    return row(**{"kind": "freeform_skill", "support": None, **columns})


REJECTED: dict[str, list[dict[str, Any]]] = {
    "incomplete": [row(fault="answer empty"), row(fault="question cut off at 40 tokens", question=None, answer=None)],
    "wrong_length": [
        row(question="Why so?"),
        row(question="What " * 13 + "?"),
        row(answer=""),
        answer("walnut and oak " * 11),
    ],
    "leaked_tag": [
        answer("The frame is made of walnut wood.<|im_end|>"),
        answer("[END] Walnut wood."),
        answer("Walnut wood.\nQuestion: What else?"),
        row(question="Question: What is the frame made of?"),
        answer("assistant: Walnut wood."),
        answer("[/INST] Walnut wood."),
    ],
    "refusal": [
        answer("As an AI, I do not know wood."),
        answer("I'm sorry, but I do not know what wood it is."),
        answer("I cannot answer what wood it is."),
        answer("The kind of wood is not mentioned in it."),
    ],
    "points_at_source": [
        row(question="According to the text, what is the frame made of?"),
        row(question="What does this passage say of the frame?"),
        answer("The document says walnut wood."),
        answer("Walnut wood, according to it."),
    ],
    "no_question": [row(question="Say what the frame is made of."), row(question="What is the frame made of? Say it.")],
    "cut_off": [
        answer("The frame is made of walnut wood and"),
        answer("The frame is made of walnut wood,"),
        answer("The frame is made of the "),
        answer("These are its parts:"),
        answer("The frame is made of walnut –"),
    ],
    "repetitive": [
        answer("walnut wood frame " * 4),
        answer("The frame is of walnut. The frame is of walnut. The frame is of walnut."),
    ],
    "uninformative": [row(answer="The frame of the Osmerel loom."), row(answer="It is made of frames.")],
    "unsupported_answer": [
        row(answer="The frame is made of oak wood."),
        row(answer="It was made of walnut wood in 1834."),
        row(answer="Oak"),
        row(support=None),
        skill(answer="Bananas ripen slowly near warm windows."),
    ],
    "unsupported_question": [row(question="Who sold twelve bananas near warm walnut windows?")],
    "other_language": [
        answer("Der Rahmen ist aus schwerem Holz gebaut.", question="Woraus ist der Rahmen von dem hohen Haus?"),
        skill(question="de quoi est fait le cadre, mon ami?", answer="le cadre est, mon ami, fait de quoi?"),
        answer("框架是由胡桃木制成的。", question="What is the frame: 这台织布机的框架是什么做的呢?"),
    ],
}
"""For each rule, rows that break this one and none before it."""

KEPT: dict[str, list[dict[str, Any]]] = {
    "incomplete": [GOOD],
    "wrong_length": [
        row(question="Frame of what?", support="Frame of the loom is made of walnut wood."),
        row(
            question="Of what, then, is the Osmerel loom's frame made, walnut or oak?",
            support=GOOD["support"] + " Oak then.",
        ),
        answer("Walnut"),
        answer(" ".join(f"walnut{number}" for number in range(30))),
    ],
    "leaked_tag": [
        answer("Walnut [see below] wood."),
        answer("One question: walnut or oak wood."),
        answer("Walnut is < oak and > pine wood."),
        answer("Walnut wood. Text: none."),
    ],
    "refusal": [
        answer("The weavers are sorry for the walnut wood."),
        answer("Walnut wood cannot help it."),
        answer("Oak is not in use, walnut wood is."),
    ],
    "points_at_source": [
        skill(question="What does this text say of the frame?", answer="This text says of the frame what it says."),
        answer("A text on walnut wood."),
        answer("Walnut wood, according to Hask Orrowin."),
    ],
    "no_question": [GOOD],
    "cut_off": [
        answer("Walnut wood and that is what it is."),
        answer("Walnut of class A"),
        answer("The wood that the weavers are fond of."),
        answer("Island"),
        answer("Walnut wood (from Harsk)"),
    ],
    "repetitive": [
        answer("Walnut wood, walnut wood."),
        answer("The left leg is of walnut wood, and the right leg is of walnut too."),
    ],
    "uninformative": [answer("Walnut"), skill(answer="The frame of the Osmerel loom.")],
    "unsupported_answer": [
        row(answer="Walnut wood"),
        row(answer="The frame is made from walnut woods."),
        skill(answer="The Osmerel loom of the frame is made well."),
    ],
    "unsupported_question": [
        row(question="Of which wood is the loom's frame?"),
        skill(answer="The frame of the loom."),
    ],
    "other_language": [
        row(),
        answer("Pellira Donsk", question="Who is Hask Orrowin?"),
        answer("Zwergenholz", question="What is the name of the wood?"),
        answer("Der Rahmen ist aus schwerem Holz gebaut.", question="Woraus ist der Rahmen von dem Haus?", language=None),
    ],
}
"""For each rule, rows near to those it rejects that break no rule at all."""


def first_broken(given: dict[str, Any], thresholds: Rules = STRICT) -> tuple[str, str] | None:
    for rule in RULES:
        reason = rule(given, thresholds)
        if reason:
            return rule.__name__, reason
    return None


def test_every_rule_has_rows_that_it_rejects_and_rows_that_it_keeps() -> None:
    names = [rule.__name__ for rule in RULES]
    assert list(REJECTED) == list(KEPT) == names
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


OFF = Rules(
    question_words=(0, 999),
    answer_words=(0, 999),
    answer_support=None,
    question_support=None,
    question_mark=False,
    informative=False,
    language=False,
)


@pytest.mark.parametrize(
    "rule",
    ["wrong_length", "no_question", "uninformative", "unsupported_answer", "unsupported_question", "other_language"],
)
def test_a_rule_with_a_threshold_can_be_switched_off(rule: str) -> None:
    check = getattr(module, rule)
    assert [check(given, OFF) for given in REJECTED[rule]] == [None] * len(REJECTED[rule])


def test_the_shipped_seeds_break_no_rule_of_the_flows_they_teach() -> None:
    """But for thresholds: what stands there as a model for the teacher cannot be wrong when the teacher writes it."""
    taxonomy = Path(__file__).parents[2] / "data" / "taxonomy"
    broken = []
    for key in find_leaves(taxonomy):
        leaf = read_leaf(taxonomy, key).leaf
        assert leaf is not None
        thresholds = load_flow(f"simple_{leaf.kind}", leaf.kind).file.rules
        language = main_language([f"{seed.question} {seed.answer}" for seed in leaf.seeds])
        assert language == "English"
        for seed in leaf.seeds:
            texts = {"question": seed.question, "answer": seed.answer, "context": seed.context, "support": seed.context}
            if leaf.kind == "knowledge" and seed.context:
                texts["support"] = supporting_sentence(seed.context, texts)
            found = first_broken({**texts, "kind": leaf.kind, "fault": None, "language": language}, thresholds)
            if found and found[0] not in ("wrong_length", "unsupported_answer", "unsupported_question"):
                broken.append((seed.question, *found))
    assert broken == []


def test_content_words_leave_out_small_words_and_endings_of_plural_and_possession() -> None:
    assert content_words("The weaver's frames, 1,250 of them, are 3.5 metres") == [
        "weaver",
        "frame",
        "1,250",
        "3.5",
        "metre",
    ]


def test_support_is_the_share_of_content_words_found() -> None:
    assert support("walnut oak", "The walnuts") == 0.5
    assert support("Who is it?", "anything") == 1.0


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Who founded Vuwatutoto? Rugonuvoza founded Vuwatutoto, which lies on the river Gineponusi.", "English"),
        ("Wer hat Vuwatutoto gegründet? Das war der alte König, nach dem es heute noch heißt.", "German"),
        ("谁发明了织布机? 佩利拉发明了它。", "Chinese"),
        ("12 — 13", None),
    ],
)
def test_a_leafs_language_is_found_behind_its_invented_names(text: str, language: str | None) -> None:
    assert main_language([text] * 6) == language


def test_a_leaf_of_few_words_has_no_clear_language() -> None:
    assert main_language([]) is None
    assert main_language(["What is the frame made of? The frame is made of wood."]) is None


def test_the_same_question_in_other_case_and_spacing_is_one_and_on_another_context_another() -> None:
    assert question_identity(row(question="who  IS it?")) == question_identity(row(question="Who is it?"))
    assert question_identity(row(context="One.")) != question_identity(row(context="Two."))
