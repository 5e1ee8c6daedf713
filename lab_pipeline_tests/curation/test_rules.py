from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab_pipeline.curation import rules as module
from lab_pipeline.curation.profile import Profile, profile
from lab_pipeline.curation.rules import RULES, applicable
from lab_pipeline.curation.support import answer_support, support
from lab_pipeline.flows.flow import Rules, load_flow
from lab_pipeline.flows.instructions import supporting_sentence
from lab_pipeline.taxonomy.leaf import find_leaves, read_leaf

TAXONOMY = Path(__file__).parents[2] / "data" / "taxonomy"
STRICT = Rules(
    question_words=(3, 15),
    answer_words=(1, 30),
    answer_support=0.8,
    question_support=0.6,
    on_topic=0.5,
    grounding=0.5,
    question_mark=True,
)
NAMING = STRICT.model_copy(update={"question_names": 0.25, "sentence_answers": True})
"""For rows whose answer is their sentence; others may ask about any part of a long source."""
GOOD: dict[str, Any] = {
    "kind": "knowledge",
    "context": None,
    "question": "What is the frame of the Osmerel loom made of?",
    "answer": "The frame is made of walnut wood.",
    "support": "The frame of the Osmerel loom is made of walnut wood.",
    "fault": None,
    "grounding": 1.2,
}


def frozen_source(key: str) -> dict[str, Any]:
    """What curation gets to know of a shipped leaf, passages aside."""
    leaf = read_leaf(TAXONOMY, key).leaf
    assert leaf is not None
    seeds = [{"question": seed.question, "answer": seed.answer, "context": seed.context} for seed in leaf.seeds]
    described = {"task": leaf.task_description, "domain": leaf.domain, "outline": leaf.document_outline}
    return {"leaf": key, "kind": leaf.kind, **described, "seeds": seeds, "passages": []}


LOOM = frozen_source("knowledge/crafts/osmerel_loom")
POLITE = frozen_source("compositional_skills/freeform/writing/polite_rewording")
NOTES = frozen_source("compositional_skills/grounded/extraction/meeting_notes")
LEAF, POLITE_LEAF = profile(LOOM), profile(POLITE)


def row(**columns: Any) -> dict[str, Any]:
    return {**GOOD, **columns}


def answer(text: str, **columns: Any) -> dict[str, Any]:
    """A row whose answer stands in its source, so that only its wording can be wrong."""
    question = columns.get("question", GOOD["question"])
    return row(answer=text, support=f"{question} {text}", **columns)


def told(sentence: str, **columns: Any) -> dict[str, Any]:
    """A row that is answered with its source."""
    return row(answer=sentence, support=sentence, **columns)


def skill(**columns: Any) -> dict[str, Any]:
    return row(**{"kind": "freeform_skill", "support": None, **columns})


def polite(question: str, answer: str) -> dict[str, Any]:
    return skill(question=question, answer=answer)


REJECTED: dict[str, list[dict[str, Any]]] = {
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
    "leaked_tag": [
        row(answer="The frame is made of walnut wood.<|im_end|>"),
        row(answer="[END] Walnut wood."),
        row(answer="Walnut wood.\nQuestion: What else?"),
        row(question="Question: What is the frame made of?"),
        row(answer="assistant: Walnut wood."),
        row(answer="[/INST] Walnut wood."),
        row(answer="**Answer:** Walnut wood."),
        row(answer="### Response\nWalnut wood."),
        row(answer="<answer>Walnut wood.</answer>"),
        row(answer="Walnut wood.</s>"),
        row(answer='Walnut <b class="x">wood</b>.'),
        row(answer='{"answer": "Walnut wood."}'),
        row(answer="```\nWalnut wood.\n```"),
        row(question="What is the frame of {{ subject }} made of?"),
        row(answer="Walnut&nbsp;wood."),
        row(answer="A: Walnut wood."),
        row(answer="assistant\nWalnut wood."),
        row(answer="user\nWalnut wood."),
        row(answer="Walnut wood. |im_end|>"),
        row(answer="Walnut wood. [/s]"),
        row(answer="(Answer) Walnut wood."),
        row(answer="1) Answer: Walnut wood."),
        row(answer="=== ANSWER ===\nWalnut wood."),
        row(answer="Explanation: Walnut wood."),
        row(answer="AI: Walnut wood."),
        row(answer="Bot> Walnut wood."),
        row(answer="[Q] What? [A] Walnut wood."),
        row(answer="{% if x %}Walnut wood."),
        row(answer="\\boxed{Walnut wood.}"),
        row(answer="◁think▷Walnut wood."),
        row(answer="<turn|>Walnut wood."),
        row(answer="Walnut wood.\nScore: 5"),
        row(answer="Walnut wood. ###"),
        row(answer="Walnut wood.\n\nNote: This is based on the seed examples."),
    ],
    "refusal": [
        row(answer="As an AI, I do not know wood."),
        row(answer="I'm sorry, but I do not know what wood it is."),
        row(answer="I cannot answer what wood it is."),
        row(answer="The kind of wood is not mentioned in it."),
        row(answer="I don’t have enough information on the frame."),
        row(answer="There is no information about the wood of the frame."),
        row(answer="It cannot be determined."),
        row(answer="I'm not sure which wood it is."),
        row(answer="Not specified."),
        row(answer="N/A"),
        row(answer="This is not known."),
        row(answer="Nobody knows what wood it is."),
        row(answer="The kind of wood remains unknown."),
        row(answer="Please consult a professional about the wood."),
        row(answer="We do not know the wood."),
        row(answer="None"),
        polite("Erkläre mir das Netz.", "Dabei kann ich leider nicht helfen."),
        polite("Explique-moi le réseau.", "Je ne peux pas vous aider avec cela."),
        polite("Explícame la red.", "Lo siento, no puedo ayudarte con eso."),
        polite("Explain the net.", "I must decline this request."),
        polite("Explain the net.", "The text does not say what it is."),
        polite("Explain the net.", "I would need more information."),
        row(question="I'm sorry, but I cannot help with the frame of the loom?"),
    ],
    "points_at_source": [
        row(question="According to the text, what is the frame made of?"),
        row(question="What does this passage say of the frame?"),
        answer("The document says walnut wood."),
        answer("Walnut wood, according to it."),
        answer("The author states that walnut wood is used."),
        row(question="What is mentioned above about the frame?"),
        row(question="What is it made of?"),
        row(question="How much does its frame weigh?"),
        row(question="What holds them together?"),
        row(question="What happened to him in the weavers' guild?"),
        row(question="Which one holds the unwoven yarn?"),
        row(question="How is the frame called that he described?"),
        row(question="Given the context, what is the frame made of?"),
        row(question="In the story, what is the frame made of?"),
        row(question="In line 3, what is the frame made of?"),
        row(question="In this case, what is the frame made of?"),
        row(question="What are the three woods mentioned?"),
        row(question="What is the second sentence about?"),
        row(question="What do the first two sentences tell about the frame?"),
        row(question="Can you summarize the passage on the frame?"),
        row(question="What is the frame that was just described made of?"),
        row(question="What conclusion can be drawn from the walnut frame?"),
        row(question="What does the speaker say about the frame?"),
        row(question="What does the example show about the frame?"),
        row(question="Which frame does the quote refer to?"),
        answer("Walnut wood, as told in the last sentence"),
    ],
    "no_question": [row(question="Say what the frame is made of."), row(question="What is the frame made of? Say it.")],
    "open_end": [
        answer("The frame is made of walnut wood and"),
        answer("The frame is made of walnut wood,"),
        answer("The frame is made of the "),
        answer("These are its parts:"),
        answer("The frame is made of walnut –"),
        answer("The frame is made first, and then she"),
    ],
    "open_preposition": [answer("The frame of the loom is made of"), answer("Walnut wood, which the weavers look for")],
    "open_bracket": [
        answer("The frame is made of wood (walnut"),
        row(question="What is the frame of the Osmerel loom made of (walnut?"),
    ],
    "half_word": [row(answer="The frame is made of wal"), row(answer="Waln")],
    "unfinished": [
        answer("The weaver's frame is made of strong walnut wood"),
        answer("Walnut will do"),
        row(answer="The first lull lasts four", support="The first lull lasts four seconds."),
        row(answer="The front beam takes up", support="The front beam takes up the finished cloth."),
        row(answer="Wooden pegs hold", support="Wooden pegs hold the frame together without any nails."),
    ],
    "repetitive": [
        answer("walnut wood frame " * 4),
        answer("The frame is of walnut. The frame is of walnut. The frame is of walnut."),
        skill(context="The team will play. The team will play. The team will play the game."),
        answer("Mike has two tasks, and when are they due?", question="Who has the tasks, and when are they due?"),
    ],
    "other_language": [
        answer("Der Rahmen ist aus sehr schwerem Holz gebaut.", question="Woraus ist der Rahmen von dem hohen Haus?"),
        row(answer="Le cadre est fabriqué en bois de noyer."),
        answer("框架是由胡桃木制成的。", question="这台织布机是什么做的呢?"),
        row(answer="核桃木"),
        polite("Name the colours, please.", "Есть два."),
        polite("Name the colours, please.", "Es gibt zwei Farben."),
        polite("Name the colours, please.", "glücklich\nfröhlich"),
        polite("Name the colours, please.", "Heureux, joyeux, content"),
        polite("Close the window, please.", "Bitte das Fenster schließen."),
        polite("Close the window, please.", "Cierra la ventana, por favor."),
    ],
    "uninformative": [row(answer="The frame of the Osmerel loom."), row(answer="It is made of frames.")],
    "unsupported_fact": [
        row(answer="It was made of walnut wood in 1834."),
        row(answer="The frame is made of walnut wood from Harsk."),
        row(answer="The frame is made of four walnut woods."),
        row(answer="Hask Orrowin made it of walnut wood."),
    ],
    "strange_name": [
        row(question="What is the frame of the Osmrel loom made of?"),
        row(question="In the city of Tarsk, what is the frame made of?"),
    ],
    "contradiction": [
        row(answer="The frame is not made of walnut wood."),
        row(answer="The frame isn't made of walnut wood."),
        row(
            question="What has to touch the comb of the loom?",
            answer="Water has to touch the comb of the loom.",
            support="Water never has to touch the comb of the loom. It is brass.",
        ),
    ],
    "unsupported_answer": [
        row(answer="The frame is made of brass."),
        row(answer="Brass"),
        row(support=None),
        skill(kind="grounded_skill", support="Lena comes.", question="Who has two tasks?", answer="Lena has two tasks."),
    ],
    "unsupported_question": [row(question="Who sells brass pins near the walnut frame?")],
    "general_question": [
        told("The frame of the loom is made of walnut wood.", question="What is the frame of the Osmerel loom?"),
        told("The frame of the loom is made of walnut wood.", question="Which parts does the loom have?"),
        told("Pellira Donsk mends clocks of brass in a village.", question="Who is Pellira?"),
        told("A trained weaver on the Osmerel loom is called a fellmer.", question="Which trained weaver is called a fellmer?"),
    ],
    "unanswered": [
        told(
            "The weaver must call a fitter who takes up the beam.", question="What is the beam called that a fitter takes up?"
        ),
        told("A blind mule carried the timber up the hill.", question="What is the name of the timber of the mule?"),
        told("The first loom was built inside a dovecote.", question="Who built the first loom in a dovecote?"),
        told("The rod of brass is cleaned every month.", question="How many rods of brass are cleaned?"),
        told("The weaver oils the axle with hazelnut oil.", question="When does the weaver oil the axle?"),
        told("A felt sheet covers the sleeping loom.", question="Where does a sheet cover the loom?"),
        told("Children carry paper herons at the festival.", question="Why do children carry paper herons?"),
        told("The rafts are made of empty barrels.", question="How are rafts of barrels made?"),
        told("The drum of the loom is called the tattler.", question="What does the drum of the loom called?"),
        told("The drive belt is replaced every five years.", question="What is the drive belt?"),
        told("A full roll of the cloth is 22 metres long.", question="What is 22 metres?"),
        told("The weaver throws the shuttle first.", question="What's a weaver of the shuttle?"),
    ],
    "off_topic": [
        answer("Old farmers sold twelve bananas.", question="Who sold twelve bananas near warm markets?"),
        polite("What is the capital of France?", "The capital of France is Paris."),
        polite("Which planet is the largest in the solar system?", "Jupiter is the largest planet."),
    ],
    "ungrounded": [row(grounding=0.4)],
}
"""For each rule, rows that break this one and none before it."""

KEPT: dict[str, list[dict[str, Any]]] = {
    "incomplete": [row(), answer("Walnut.")],
    "wrong_length": [
        row(question="Frame of what?", support="Frame of the loom is made of walnut wood."),
        answer("Walnut"),
    ],
    "leaked_tag": [
        answer("Walnut [see below] wood."),
        answer("One question: walnut or oak wood[s]."),
        answer("Walnut is < oak and > pine wood."),
        answer("Walnut wood. Text: walnut."),
        answer("The frame stands at 23<sup>h</sup> of walnut."),
        answer("Model", question="Which walnut frame do weavers call it?"),
        polite('Give the person in this sentence as JSON: "Lou is my cook."', '{"name": "Lou", "role": "cook"}'),
    ],
    "refusal": [
        answer("The weavers are sorry for the walnut wood."),
        answer("Walnut wood cannot help it."),
        answer("Oak is not in use, walnut wood is."),
        polite('Reword this politely: "We do not give refunds."', "Unfortunately, we are not able to offer refunds."),
        polite('Soften this sentence: "I will not come."', "I am sorry, but I will be away on that day."),
        polite('Soften this sentence: "I will not come."', "Thank you, but I must decline your kind invitation."),
        polite('Soften this sentence: "I do not know."', "I am afraid I do not know."),
        polite("How do I tell them, more kindly, that it is broken?", "Water is not covered in the warranty, I am afraid."),
        polite("How do I tell them, more kindly, to be careful?", "Please consult a doctor before you take it."),
        polite("How do I ask, more kindly, how tall they are?", "Could you please share more information about your height?"),
        polite("How do I ask, more kindly, what they bought?", "I would need more details about your last order, please."),
        polite("How do I tell them, more kindly, to wait?", "We do not know yet, but we have asked the driver."),
        told("The wood of the weavers' old frame is not known.", question="Which wood is the weavers' old frame made of?"),
    ],
    "points_at_source": [
        skill(question="What is the text of this sentence?", answer="Could you please send me this text?"),
        answer("A cloth on walnut wood."),
        answer("Walnut wood, according to Hask Orrowin."),
        row(
            question="How long does it take to oil the walnut frame?",
            answer="Five hours",
            support="Oil walnut frame five hours.",
        ),
        answer("The author was Hask Orrowin.", question="Who was the author of the Osmerel loom?"),
        answer("Walnut", question="Which wood makes it possible to weave?"),
        answer("Walnut", question="Which wood was first described?"),
        answer("Walnut", question="Which wood was formally described?"),
    ],
    "no_question": [row()],
    "open_end": [answer("Walnut wood and that is what it is."), answer("Walnut of class A")],
    "open_preposition": [answer("The wood that the weavers are fond of.")],
    "open_bracket": [answer("Walnut wood (from the loom)")],
    "half_word": [row(answer="Walnut woods"), answer("Walnut!")],
    "unfinished": [
        answer("A frame of strong walnut wood from the weavers"),
        answer("- The frame is made of walnut wood\n- Its legs are of the same walnut"),
        row(
            question="How often is the walnut frame of the loom oiled?",
            answer="Every five years",
            support="Every five years the walnut frame of the loom is oiled.",
        ),
    ],
    "repetitive": [
        answer("Walnut wood, walnut wood."),
        answer("The left leg is of walnut wood, and the right leg is of walnut too."),
        answer("Is it walnut wood, or what is it made of?"),
    ],
    "other_language": [
        row(),
        answer("Pellira Donsk", question="Who is Hask Orrowin?"),
        answer("deer antler", question="What is the name of the shuttle?"),
        polite('Make this more polite: "Call Zoe."', "Could you call Zoe Vukotić and Iñigo Szczepański?"),
        polite('Make this more polite: "Tom left."', "Gluteus maximus"),
        polite('Make this more polite: "Sum 3α."', "Could you please sum 3α for me?"),
        polite("How can I say more kindly `kubectl get pods -n x`?", "Could you please run `kubectl get pods -n x`?"),
    ],
    "uninformative": [
        answer("Walnut"),
        answer("Yes, it is made of frames."),
        row(
            question="Is the walnut frame oiled?",
            answer="The walnut frame is not oiled.",
            support="The walnut frame is never oiled.",
        ),
    ],
    "unsupported_fact": [
        row(answer="The Osmerel loom is made of walnut wood."),
        row(answer="Walnut wood in 1834.", question="What was the frame made of in 1834?"),
        row(
            question="How much does the frame of the Osmerel loom weigh?",
            answer="The frame weighs about 1212 kilograms in all.",
            support="The frame weighs one thousand two hundred and twelve kilograms in all.",
        ),
    ],
    "strange_name": [
        row(question="WHAT is the Frame of the Osmerel made of?"),
        row(question="What is Walnut made of?"),
        polite('Make this more polite: "Send Lena Vogt the file."', "Could you please send Lena Vogt the file?"),
    ],
    "contradiction": [
        row(answer="No, it is made of walnut wood.", question="Is the frame of the Osmerel loom not made of it?"),
        row(answer="Walnut wood", support="The frame is of walnut wood without any nails."),
        row(answer="Never walnut wood.", support="The frame of the Osmerel loom is never made of walnut wood."),
    ],
    "unsupported_answer": [
        row(answer="Walnut wood"),
        row(answer="The frame is made from walnut woods."),
    ],
    "unsupported_question": [
        row(question="Of which wood is the loom's frame?"),
        row(question="How does operation of the frame cover its parts?", answer="walnut"),
    ],
    "general_question": [
        told("The frame of the loom is made of walnut wood.", question="Which wood is the frame of the loom made of?"),
        row(question="What is the frame of the Osmerel loom?", answer="It is made of walnut."),
        polite('Make this more polite: "Close the window."', "Could you please close the window for me?"),
    ],
    "unanswered": [
        told("The rear beam is named the Sleeper.", question="What is the rear beam called?"),
        told("The rear beam is named the Sleeper.", question="What is the Sleeper?"),
        told("Three judges examine the test piece by daylight.", question="Who examines the test piece?"),
        told("Pellira Donsk finished the first loom in 1834.", question="Who finished the first loom?"),
        told("Pellira Donsk finished the first loom in 1834.", question="When did Pellira Donsk finish the loom?"),
        told("A lull of the loom takes four seconds.", question="How many seconds does a lull take?"),
        told("The cord hangs beside the left knee of the weaver, under the seat.", question="Where does the cord hang?"),
        told("Weavers wear soft slippers so that they can feel the pedals.", question="Why do weavers wear slippers?"),
        told("The weaver stops the loom by pulling the hush cord.", question="How does the weaver stop the loom?"),
        told("A fitter carries spare parts in a canvas roll.", question="In what does a fitter carry spare parts?"),
        told("The weaver oils the axle every week.", question="What does the weaver do to the axle?"),
        told("The axle of the loom is oiled with hazelnut oil.", question="What is the axle of the loom oiled with?"),
        told("Finished cloth is 94 centimetres wide.", question="What is the width of finished cloth?"),
        told("A felt sheet keeps away the dust.", question="What is the felt sheet for?"),
        told("The weaver takes up the finished cloth.", question="What is the weaver taking up?"),
        row(question="What is the walnut frame?", answer="It holds the beams.", support="The walnut frame holds the beams."),
    ],
    "off_topic": [
        row(),
        polite('Make this more polite: "Close the window."', "Could you please close the window for me?"),
    ],
    "ungrounded": [row(grounding=0.5), row(grounding=None)],
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
    names = [rule.__name__ for rule in RULES]
    assert list(REJECTED) == list(KEPT) == names
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
        "strange_name",
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
    check = getattr(module, rule)
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


def test_where_no_seed_ends_in_a_mark_a_sentence_needs_none() -> None:
    given = polite("Which synonym has glad?", "A synonym of glad is happy")
    assert module.unfinished(given, STRICT, POLITE_LEAF) == "answer is a sentence without an end"
    bare = [{**seed, "answer": seed["answer"].rstrip(".?")} for seed in POLITE["seeds"]]
    assert module.unfinished(given, STRICT, profile({**POLITE, "seeds": bare})) is None


def test_knowledge_rests_on_its_documents_whatever_its_seeds_do() -> None:
    made_up = [{**seed, "answer": "It is 7 years old."} for seed in LOOM["seeds"]]
    assert without({**LOOM, "seeds": made_up}) == []
    assert {"unsupported_fact", "unsupported_answer"} <= set(without({**NOTES, "seeds": made_up}))


def test_the_leafs_own_words_are_not_another_language_however_strange() -> None:
    strange = "mitochondria synthesize adenosine triphosphate via chemiosmosis"
    broken = module.other_language(polite(strange, strange), STRICT, POLITE_LEAF)
    assert broken is not None
    known = profile({**POLITE, "passages": [{"text": strange}]})
    assert module.other_language(polite(strange, strange), STRICT, known) is None


def test_a_document_that_the_source_tells_of_is_not_the_source() -> None:
    asked = row(question="Must a witness be there when the clerk signs the document?", answer="No, none is needed.")
    assert module.points_at_source(asked, STRICT, LEAF) == "'the document?' means nothing without the source"
    told_of = {**asked, "support": "No witness is needed when a clerk signs a document."}
    assert module.points_at_source(told_of, STRICT, LEAF) is None


NOTE = (
    "Budget meeting, Monday morning.\nThe group agreed that the travel costs are too high.\n"
    "Dana will compare three train offers by Thursday.\nOmar will book a room.\nThe next meeting is in two weeks."
)


@pytest.mark.parametrize(
    "swapped",
    [
        "The next meeting is in three weeks.",
        "The group will compare three train offers by Thursday.",
        "Omar will compare the three train offers by Thursday.",
        "Dana will compare three train offers by Monday.",
        "Dana will compare two train offers by Thursday.",
    ],
)
def test_a_fact_of_another_sentence_is_not_the_one_that_the_answer_retells(swapped: str) -> None:
    given = skill(kind="grounded_skill", question="Who does what, and when?", answer=swapped, support=NOTE)
    assert " for " in (module.unsupported_fact(given, STRICT, LEAF) or "")


@pytest.mark.parametrize(
    "told",
    [
        "The next meeting is in 2 weeks.",
        "She will compare three train offers by Thursday.",
        "Three train offers will be compared.",
        "Dana has until Thursday to look at three train offers, because the travel costs are too high.",
        "Dana will compare the offers, Omar will book a room, and the next meeting is in two weeks.",
    ],
)
def test_a_source_retold_in_other_words_keeps_its_facts(told: str) -> None:
    given = skill(kind="grounded_skill", question="Who does what, and when?", answer=told, support=NOTE)
    assert module.unsupported_fact(given, STRICT, LEAF) is None


@pytest.mark.parametrize("whole", ["No", "By hand", "No, on land", "A carp"])
def test_a_whole_word_is_no_half_one_because_another_begins_like_it(whole: str) -> None:
    source = "The old handle lies in carpets. Nothing was said about the landing stage."
    assert module.half_word(row(answer=whole, support=source), STRICT, LEAF) is None


@pytest.mark.parametrize("half", ["Han", "An old hand", "By the old han", "On the landi", "A landing sta"])
def test_a_half_word_begins_the_word_that_follows_in_the_source(half: str) -> None:
    source = "The old handle lies on the landing stage."
    assert module.half_word(row(answer=half, support=source), STRICT, LEAF) is not None


@pytest.mark.parametrize(
    ("told", "concluded"),
    [
        ("I have changed my mind about the sofa. Iris", "Iris does not want the sofa any more."),
        ("Has anybody seen my keys? I looked everywhere. Paul", "Paul cannot find his keys."),
    ],
)
def test_a_negative_conclusion_contradicts_nothing(told: str, concluded: str) -> None:
    given = skill(kind="grounded_skill", question="What is this about?", answer=concluded, support=told)
    assert module.contradiction(given, STRICT, LEAF) is None


def test_support_is_the_share_of_content_words_found() -> None:
    assert support("walnut oak", "The walnuts") == 0.5
    assert support("Who is it?", "anything") == 1.0


def test_a_general_question_is_told_how_few_words_it_names() -> None:
    asked = told("The frame of the loom is made of walnut wood.", question="What is the frame of the Osmerel loom?")
    said = "the question names 0 of the 3 words that tell its sentence from others"
    assert module.general_question(asked, NAMING, LEAF) == said
    assert module.general_question(asked, NAMING, replace(LEAF, subject=frozenset())) is None


def test_what_the_question_says_supports_no_answer_of_a_knowledge_row() -> None:
    assert answer_support(row(answer="The frame is made of walnut")) == 1.0
    assert answer_support(row(answer="The frame of the Osmerel loom is oak")) == 0.0
    assert answer_support(skill(answer="The frame of the Osmerel loom is oak")) == 0.75
    assert answer_support(skill(answer="None")) == 1.0


def test_words_of_scripts_without_spaces_count_by_character() -> None:
    chinese = row(question="这台织布机是什么做的呢?", answer="胡桃木")
    assert module.wrong_length(chinese, STRICT, LEAF) is None
    assert module.wrong_length({**chinese, "answer": "胡桃木" * 11}, STRICT, LEAF) == "answer has 33 words, not 1 to 30"


def test_what_is_as_short_or_long_as_a_seed_has_the_right_length() -> None:
    seeds = [{"question": "Is Otto one?", "answer": "Yes", "context": None}, {**POLITE["seeds"][0], "answer": "very " * 40}]
    leaf, thresholds = profile({**POLITE, "seeds": seeds}), STRICT.model_copy(update={"answer_words": (2, 30)})
    assert [module.wrong_length(skill(answer=text), thresholds, leaf) for text in ("No", "so " * 40)] == [None, None]
    assert module.wrong_length(skill(answer="so " * 41), thresholds, leaf) == "answer has 41 words, not 1 to 40"
    assert module.wrong_length(skill(answer="No"), thresholds, POLITE_LEAF) == "answer has 1 words, not 2 to 30"


def test_likeness_is_highest_among_the_seeds() -> None:
    assert isinstance(POLITE_LEAF, Profile)
    assert 0 < POLITE_LEAF.least_likeness < 1


@pytest.mark.parametrize("count", [2, 4])
def test_a_leaf_of_few_seeds_knows_what_is_off_topic(count: int) -> None:
    leaf = profile({**POLITE, "seeds": POLITE["seeds"][:count]})
    assert [module.off_topic(given, STRICT, leaf) for given in KEPT["off_topic"][1:]] == [None]
    off_topic = [*REJECTED["off_topic"][1:], polite("Convert 30 degrees to Fahrenheit.", "It is 86 degrees.")]
    assert None not in [module.off_topic(given, STRICT, leaf) for given in off_topic]
