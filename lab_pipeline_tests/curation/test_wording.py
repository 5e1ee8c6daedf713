"""Rows that the rules on wording reject and keep (`test_rules.py` tests them), and special cases of single rules."""

from __future__ import annotations

import pytest

from lab_pipeline.curation.profile import profile
from lab_pipeline_tests.curation.rows import POLITE, POLITE_LEAF, answer, check, polite, row, skill, told

REJECTED = {
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
        row(answer="The document says walnut wood."),
        row(answer="Walnut wood, according to it."),
        row(answer="The author states that walnut wood is used."),
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
        row(answer="Walnut wood, as told in the last sentence"),
    ],
    "no_question": [row(question="Say what the frame is made of."), row(question="What is the frame made of? Say it.")],
    "unfinished": [
        answer("The frame is made of walnut wood and"),
        answer("The frame is made of walnut wood,"),
        answer("The frame is of walnut, oak, and"),
        answer("The frame is made of the "),
        answer("These are its parts:"),
        answer("The frame is made of walnut –"),
        answer("The frame is made first, and then she"),
        answer("The frame is made of wood (walnut"),
        row(question="What is the frame of the Osmerel loom made of (walnut?"),
        row(answer="The frame is made of wal"),
    ],
    "no_end_mark": [polite("Which synonym has glad?", "A synonym of glad is happy")],
    "repetitive": [
        answer("Walnut wood frame. " * 4),
        answer("The frame is of walnut. " * 4),
        polite("Close the window, please.", "The team will play. " * 4),
        row(context="The team will play. " * 4 + "The"),
        answer("Mike has two tasks, and when are they due?", question="Who has the tasks, and when are they due?"),
        answer("Mike has two tasks, and when are they due？", question="Who has the tasks, and when are they due？"),
    ],
}

KEPT = {
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
    "no_question": [row(), *(row(question=f"What is the frame of the loom made of{mark}") for mark in "？؟\u037e")],
    "no_end_mark": [row(), row(answer="Walnut wood")],
    "unfinished": [
        answer("Walnut wood and that is what it is."),
        answer("Walnut of class A"),
        answer("The wood that the weavers are fond of."),
        answer("Walnut wood (from the loom)"),
        row(answer="Walnut woods"),
        answer("Walnut!"),
        answer("walnut, weavers, were"),
        answer("In capitals are Walnut, Osmerel, Of"),
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
        answer("The frame is of walnut. The frame is of walnut. The frame is of walnut."),
        answer("The left leg is of walnut wood, and the right leg is of walnut too."),
        answer("Is it walnut wood, or what is it made of?"),
    ],
}


def test_where_no_seed_ends_in_a_mark_a_sentence_needs_none() -> None:
    given = polite("Which synonym has glad?", "A synonym of glad is happy")
    assert check("no_end_mark", given, POLITE_LEAF) == "answer is a sentence without an end"
    bare = [{**seed, "answer": seed["answer"].rstrip(".?")} for seed in POLITE["seeds"]]
    assert check("no_end_mark", given, profile({**POLITE, "seeds": bare})) is None


def test_a_document_that_the_source_tells_of_is_not_the_source() -> None:
    asked = row(question="Must a witness be there when the clerk signs the document?", answer="No, none is needed.")
    assert check("points_at_source", asked) == "'the document?' means nothing without the source"
    told_of = {**asked, "support": "No witness is needed when a clerk signs a document."}
    assert check("points_at_source", told_of) is None


@pytest.mark.parametrize("whole", ["No", "By hand", "No, on land", "A carp"])
def test_a_whole_word_is_no_half_one_because_another_begins_like_it(whole: str) -> None:
    source = "The old handle lies in carpets. Nothing was said about the landing stage."
    assert check("unfinished", row(answer=whole, support=source)) is None


@pytest.mark.parametrize("half", ["An old hand", "By the old han", "On the landi", "A landing sta"])
def test_a_half_word_begins_the_word_that_follows_in_the_source(half: str) -> None:
    source = "The old handle lies on the landing stage."
    assert check("unfinished", row(answer=half, support=source)) is not None
