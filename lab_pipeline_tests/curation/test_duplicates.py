from __future__ import annotations

from typing import Any

import pytest

from lab_pipeline.curation.duplicates import Duplicates

WALNUT = "The frame is made of walnut wood."


def row(question: str, answer: str = WALNUT, context: str | None = None) -> dict[str, Any]:
    return {"id": "row", "question": question, "answer": answer, "context": context}


def repeats(first: dict[str, Any], second: dict[str, Any]) -> bool:
    earlier = Duplicates()
    earlier.add({**first, "id": "first"})
    found = earlier.find(second)
    assert found in ("first", None)
    return found is not None


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
