"""Rows that the rules on support reject and keep (`test_rules.py` tests them), and special cases of single rules."""

from __future__ import annotations

from typing import Any

import pytest

from lab_pipeline.curation.profile import Profile, profile
from lab_pipeline_tests.curation.rows import POLITE, POLITE_LEAF, answer, check, polite, row, skill, told

REJECTED = {
    "unsupported_number": [
        row(answer="It was made of walnut wood in 1834."),
        row(answer="The frame is made of four walnut woods."),
    ],
    "unsupported_answer": [
        row(answer="The frame is made of shiny brass."),
        skill(
            kind="grounded_skill",
            support="Lena comes to the frame.",
            question="Who comes to the frame?",
            answer="Lena brings warm bread.",
        ),
    ],
    "asked_elsewhere": [
        told("A brass rod hangs beside the seat.", question="What is the Osmerel loom?"),
    ],
    "off_topic": [
        answer("Old farmers sold twelve bananas.", question="Who sold twelve bananas near warm markets?"),
        polite("What is the capital of France?", "The capital of France is Paris."),
        polite("Name the largest planet of our sun.", "Jupiter is the largest planet."),
    ],
}

KEPT = {
    "unsupported_number": [
        row(answer="The Osmerel loom is made of walnut wood."),
        row(answer="Walnut wood in 1834.", question="What was the frame made of in 1834?"),
        row(
            question="How much does the frame of the Osmerel loom weigh?",
            answer="The frame weighs about 1212 kilograms in all.",
            support="The frame weighs one thousand two hundred and twelve kilograms in all.",
        ),
    ],
    "unsupported_answer": [
        row(answer="Walnut wood"),
        row(answer="The frame is made from walnut woods."),
    ],
    "asked_elsewhere": [
        told("The frame of the loom is made of walnut wood.", question="Which wood is the frame of the loom made of?"),
        told("The rear beam is named the Sleeper.", question="What is the Sleeper?"),
        row(question="What is the frame of the Osmerel loom?", answer="It is made of walnut."),
    ],
    "off_topic": [
        row(),
        polite('Make this more polite: "Close the window."', "Could you please close the window for me?"),
    ],
}

NOTE = (
    "Budget meeting, Monday morning.\nThe group agreed that the travel costs are too high.\n"
    "Dana will compare three train offers by Thursday.\nOmar will book a room.\nThe next meeting is in two weeks."
)


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
def test_a_source_retold_in_other_words_keeps_its_numbers(told: str) -> None:
    given = skill(kind="grounded_skill", question="Who does what, and when?", answer=told, support=NOTE)
    assert check("unsupported_number", given) is None


def test_what_the_question_says_supports_no_answer_of_a_knowledge_row() -> None:
    def least(given: dict[str, Any]) -> str | None:
        return check("unsupported_answer", given, minimum=1.0)

    assert least(row(answer="The frame is made of walnut wood")) is None
    assert least(row(answer="The frame of the Osmerel loom is oak wood")) == "50% of the answer's words are supported"
    assert least(skill(answer="The frame of the Osmerel loom is oak")) == "75% of the answer's words are supported"
    assert least(skill(answer="None")) is None


def test_a_single_word_needs_no_support() -> None:
    assert check("unsupported_answer", row(answer="Brass")) is None


def test_likeness_is_highest_among_the_seeds() -> None:
    assert isinstance(POLITE_LEAF, Profile)
    assert 0 < POLITE_LEAF.least_similarity < 1


@pytest.mark.parametrize("count", [3, 4])
def test_a_leaf_of_few_seeds_knows_what_is_off_topic(count: int) -> None:
    leaf = profile({**POLITE, "seeds": POLITE["seeds"][:count]})
    assert [check("off_topic", given, leaf) for given in KEPT["off_topic"][1:]] == [None]
    unlike = [*REJECTED["off_topic"][1:], polite("Convert 30 degrees to Fahrenheit.", "It is 86 degrees.")]
    assert None not in [check("off_topic", given, leaf) for given in unlike]
