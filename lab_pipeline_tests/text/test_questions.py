from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_pipeline.text.questions import asked_kinds, calculation, exchanged


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("By whom was it made?", {"who"}),
        ("It was made when, and WHERE?", {"when", "where"}),
        ("How many are there?", {"count"}),
        ("How does it work?", {"how"}),
        ("What is it?", {"what", "count"}),
        ("How old is it? Which of them is it? What is it called? Whenever?", set()),
        ("Wer ist das?", set()),
    ],
)
def test_question_words_say_which_kind_of_thing_is_asked_for(text: str, kinds: set[str]) -> None:
    assert asked_kinds(text) == kinds


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("What is 7 – 1,250?", ("7", "-", "1250")),
        ("(x+1)*2 >= -y", ("x", "+", "1", ")", "*", "2", "2", ">=", "-y")),
        ("2 + 9 + 1", ("+", "1", "2", "9", "9")),
        ("2 × 3 is 3·2", ("*", "2", "2", "3", "3")),
        ("What does && mean, and what `-`?", ("", "&&", "", "", "-", "")),
        ("Well-known facts - those and/or others -- of **bold** Covid-19!\n* Ann & Bob\n> 50% of it", ()),
    ],
)
def test_calculations_are_signs_with_what_they_stand_between(text: str, found: tuple[str, ...]) -> None:
    assert calculation(text) == found


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ("from Harsk to the Tarn", "from the Tarn to Harsk", {"from", "harsk", "to", "tarn"}),
        ("Ann calls Bob", "Bob calls Ann", {"", "ann", "calls", "bob"}),
        ("of Ann and Bob", "of Bob and Ann", set()),
        ("In Harsk, who wove in 1834?", "In 1834, who wove in Harsk?", set()),
        ("the frame of the loom", "the loom's frame", set()),
    ],
)
def test_words_are_exchanged_where_each_stands_after_what_was_before_the_other(one: str, other: str, words: set[str]) -> None:
    assert exchanged(one, other) == exchanged(other, one) == words


@given(st.text())
def test_any_text_can_be_compared_with_itself(text: str) -> None:
    calculation(text)
    asked_kinds(text)
    assert not exchanged(text, text)
