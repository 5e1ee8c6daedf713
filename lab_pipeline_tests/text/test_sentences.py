from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_pipeline.text.sentences import sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One is here. Two is there.", ["One is here.", "Two is there."]),
        ("Really? Yes! So be it.", ["Really?", "Yes!", "So be it."]),
        ('He said "go." She went.', ['He said "go."', "She went."]),
        ("Dr. Velt met Mr. Hask. They spoke.", ["Dr. Velt met Mr. Hask.", "They spoke."]),
        ("J. R. Smith wrote it. It sold well.", ["J. R. Smith wrote it.", "It sold well."]),
        ("See Fig. 3 for more. It shows all.", ["See Fig. 3 for more.", "It shows all."]),
        ("It cost 3.50. It was sold in May. A boat came.", ["It cost 3.50.", "It was sold in May.", "A boat came."]),
        ("¿Quién guarda el puerto? ¡Ilse lo guarda!", ["¿Quién guarda el puerto?", "¡Ilse lo guarda!"]),
        ("港口在早上六点开放。看守人是伊尔莎。", ["港口在早上六点开放。", "看守人是伊尔莎。"]),
        ("كم يبلغ؟ يبلغ ارتفاع البرج 32 مترا.", ["كم يبلغ؟", "يبلغ ارتفاع البرج 32 مترا."]),
        ("Он пришёл. Она ушла.", ["Он пришёл.", "Она ушла."]),
        ("No end", ["No end"]),
        ("  ", []),
        ("", []),
    ],
)
def test_text_is_split_where_sentences_end(text, expected):
    assert sentences(text) == expected


def test_a_word_that_ends_like_an_abbreviation_ends_its_sentence():
    assert sentences("They climbed the crest. They saw it all.") == ["They climbed the crest.", "They saw it all."]


@given(st.text() | st.text(st.sampled_from("aA.!? \n\"')(“”9ÀMrDS"), max_size=60))
def test_splitting_loses_no_character_but_blanks(text):
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())


def test_splitting_takes_time_in_proportion_to_the_text():
    text = "Mr. A. " * 20_000
    start = time.monotonic()
    sentences(text)
    assert time.monotonic() - start < 3


def test_abbreviations_of_a_language_end_no_sentence():
    found = sentences("Dr. med. Ilse kommt z. B. um 6 Uhr. Sie geht.", "German")
    assert found == ["Dr. med. Ilse kommt z. B. um 6 Uhr.", "Sie geht."]
