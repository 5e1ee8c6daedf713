from __future__ import annotations

from typing import Any

import pytest

from lab_pipeline.curation.duplicates import Duplicates, asked_question

WALNUT = "The frame is made of walnut wood."


def row(question: str, answer: str = WALNUT, context: str | None = None) -> dict[str, Any]:
    return {"id": "row", "question": question, "answer": answer, "context": context}


def repeats(first: dict[str, Any], second: dict[str, Any]) -> bool:
    earlier = Duplicates()
    earlier.add(asked_question(first))  # type: ignore[arg-type]
    return earlier.find(asked_question(second)) is not None  # type: ignore[arg-type]


FIRST = row("What is the frame of the Osmerel loom made of?")


@pytest.mark.parametrize(
    "again",
    [
        row("what  IS the frame of the OSMEREL loom made of ?", "Oak"),
        row("Could you please tell me what the frame of the Osmerel loom is made of?", "Oak"),
        row("Of what is the Osmerel loom's frame made?", "Oak"),
        row("What wood is the frame of the Osmerel loom made from?"),
    ],
)
def test_the_same_question_in_other_words_is_found(again: dict[str, Any]) -> None:
    assert repeats(FIRST, again)
    assert repeats(again, FIRST)


@pytest.mark.parametrize(
    "other",
    [
        row("What is the shuttle of the Osmerel loom made of?"),
        row("What is the frame of the Thalveren loom made of?"),
        row("What is the frame of the Osmerel loom not made of?"),
        row("What are the 2 frames of the Osmerel loom made of?"),
        row("What is the frame of the Osmerel loom made of?", context="Another text."),
        row("What stands near the frame of that loom?"),
    ],
)
def test_another_question_is_not(other: dict[str, Any]) -> None:
    assert not repeats(FIRST, other)
    assert not repeats(other, FIRST)


def test_a_word_in_the_place_of_another_makes_another_question_unless_the_answer_is_the_same() -> None:
    long = "Which tall old oak tree stands near the deep river at the {} end of the long village street?"
    assert not repeats(row(long.format("northern"), "The first."), row(long.format("southern"), "The second."))
    assert repeats(row(long.format("upper"), "The first."), row(long.format("higher"), "The first."))


ASKING_OTHERWISE = [
    ("Who founded Thalveren?", "When was Thalveren founded?"),
    ("Where does the moth lay its eggs?", "When does the moth lay its eggs?"),
    ("Why does the wheel turn?", "How does the wheel turn?"),
    ("What does the moth eat?", "When does the moth eat?"),
    ("To whom was the loom sold?", "For how much was the loom sold?"),
    ("What is 7 * 8?", "What is 7 / 8?"),
    ("What is 7 - 8?", "What is 8 - 7?"),
    ("Solve 2x + 3 = 11 for x.", "Solve 2x - 3 = 11 for x."),
    ("What does == mean in Python?", "What does != mean in Python?"),
    ("Write a loop in C.", "Write a loop in C++."),
    ("Write a loop in C#.", "Write a loop in C++."),
]
EXCHANGED = [
    ("Is a lion bigger than a wolf?", "Is a wolf bigger than a lion?"),
    ("Translate 'chat' from English to French.", "Please translate 'chat' from French to English."),
    ("Does the road lead from New Harsk to Old Tarn?", "Does the road lead from Old Tarn to New Harsk?"),
    (
        "The shop opened before the bakery but after the bank. Which opened first?",
        "The bank opened before the bakery but after the shop. Which opened first?",
    ),
    ("Convert 30 C to F.", "Convert 30 F to C."),
    ("Subtract 3 from 5.", "Subtract 5 from 3."),
]


@pytest.mark.parametrize(("one", "other"), ASKING_OTHERWISE)
def test_the_same_words_may_ask_for_another_thing(one: str, other: str) -> None:
    assert not repeats(row(one, "This."), row(other, "Else."))
    assert not repeats(row(one), row(other)), "one sentence may answer both"


@pytest.mark.parametrize(("one", "other"), EXCHANGED)
def test_words_that_change_places_make_another_question_unless_the_answer_is_the_same(one: str, other: str) -> None:
    assert not repeats(row(one, "This."), row(other, "Else."))
    assert repeats(row(one), row(other))


ASKING_THE_SAME = [
    ("When was the mill built?", "The mill was built when?"),
    ("When was the mill built?", "Do you know when they built the mill?"),
    ("What did the loom cost?", "How much did the loom cost?"),
    ("Who founded Thalveren?", "What was the founder of Thalveren called?"),
    ("Who founded Thalveren?", "Tell me what you know: who is the founder of Thalveren?"),
    ("What does the loom look like?", "How does the loom look?"),
    ("Who saved the mill when it burnt?", "When the mill burnt, who saved it?"),
    ("Who wove in Harsk in 1834?", "In 1834 in Harsk, who wove?"),
    ("Who are Ann and Bob of Harsk?", "Who are Bob and Ann of Harsk?"),
    ("What is 7 + 8?", "What is 8+7?"),
    ("What holds the well-known bridge - the old one - up?", "What holds the well-known bridge, the old one, up?"),
]


@pytest.mark.parametrize(("one", "other"), ASKING_THE_SAME)
def test_question_words_that_leave_it_open_and_words_that_only_move_make_no_other_question(one: str, other: str) -> None:
    assert repeats(row(one, "This."), row(other, "Else."))
    assert repeats(row(other, "This."), row(one, "Else."))
