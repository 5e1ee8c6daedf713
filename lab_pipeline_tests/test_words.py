from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_pipeline.words import affirmed, content_words, names, negated, numbers


def test_content_words_are_stems_without_function_words() -> None:
    assert content_words("The weaver's frames, 1,250 of them, are 35cm high") == ["weav", "fram", "1,250", "35", "cm", "high"]
    assert content_words("invented inventor inventing") == ["invent"] * 3
    assert content_words("框架") == ["框", "架"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("forty-one of 8,420", {"41", "8420"}),
        ("two hundred and twelve, and three thousand and five", {"212", "3005"}),
        ("the ninth of May 1834 at 18:00", {"9", "1834", "18:00"}),
        ("one of 3.5 metres, often a tenner", {"3.5"}),
        ("1. walnut\n2) oak", set()),
        ("two or three", {"2", "3"}),
    ],
)
def test_numbers_are_the_same_in_digits_and_in_words(text: str, found: set[str]) -> None:
    assert numbers(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It was Pellira Donsk's loom.", ["Pellira", "Donsk"]),
        ("Pellira Donsk made it. Dana will see. Omar repaired it.", ["Pellira", "Donsk", "Dana", "Omar"]),
        ("Walnut wood. Named after a mule. Nobody is here. Denylisting is done.", []),
        ("- Ruth will order\n- Felix must go", ["Ruth", "Felix"]),
        ("on Monday at NGC 625", ["Monday", "NGC"]),
    ],
)
def test_names_are_capitalised_words_inside_sentences_and_subjects(text: str, found: list[str]) -> None:
    assert names(text) == found


@pytest.mark.parametrize("text", ["It isn't.", "It is not.", "Without nails", "Nobody came.", "It can’t be."])
def test_negations(text: str) -> None:
    assert negated(text)
    assert not negated(affirmed(text))


def test_words_that_hold_a_negation_are_none() -> None:
    assert not negated("A notable knot, and nor­mally so; nonetheless.".replace("\u00ad", ""))


@given(st.text())
def test_any_text_has_words(text: str) -> None:
    content_words(text)
    names(text)
    assert all(number and not number.startswith(",") for number in numbers(text))
