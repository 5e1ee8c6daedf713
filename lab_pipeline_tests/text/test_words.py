from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_pipeline.text.words import content_words, is_asked, names, negated, numbers


def test_content_words_are_stems_without_function_words() -> None:
    assert content_words("The weaver's frames, 1,250 of them, are 35cm high") == ("weav", "frame", "1,250", "35", "cm", "high")
    assert content_words("invented inventor inventing") == ("invent",) * 3
    assert content_words("框架") == ("框", "架")
    assert content_words("C, C++ and C# or c+1") == ("c", "c++", "c#", "c", "1")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("forty-one of 8,420", {"41", "8420"}),
        ("two hundred and twelve, and three thousand and five", {"212", "3005"}),
        ("the ninth of May 1834 at 18:00", {"9", "1834", "18.00"}),
        ("one of 3.5 metres, often a tenner", {"3.5"}),
        ("the twenty-first and the Thirty-Second of five, first and second for a second", {"21", "32", "5"}),
        ("1. walnut\n2) oak", set()),
        ("two or three", {"2", "3"}),
        ("an OS on two disks, a decade ago", {"2", "10"}),
        ("2.500 m, 2,500 ft and 2,5 at 10:30", {"2500", "2.5", "10.30"}),
    ],
)
def test_numbers_are_the_same_in_digits_and_in_words(text: str, found: set[str]) -> None:
    assert numbers(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It was Pellira Donsk's loom.", ["Pellira", "Donsk"]),
        ("Pellira Donsk made it. Dana will see. Omar repaired it.", ["Donsk"]),
        ("Walnut wood. Named after a mule. Nobody is here. Denylisting is done.", []),
        ("- Ruth will order\n- the goat Felix must go", ["Felix"]),
        ("on Monday at NGC 625", ["Monday", "NGC"]),
        ("the iSCSI target of an iPhone", []),
        ("małe źródło w mieście Łódź, Stanisław Żółkiewski", ["Łódź", "Stanisław", "Żółkiewski"]),
        ("ve městě Žďár u říčky, Bedřich Dvořák", ["Žďár", "Bedřich", "Dvořák"]),
        ("by Rene\u0301 D\u030cura", ["Rene\u0301", "D\u030cura"]),
        ("the d'Artagnan of Ἀθῆναι and Москва", ["Artagnan", "Ἀθῆναι", "Москва"]),
        ("这台织布机 هذا النول", []),
        ("Is it？ Walnut wood. Is it؟ Walnut wood.", []),
    ],
)
def test_names_are_capitalised_words_inside_sentences(text: str, found: list[str]) -> None:
    assert list(names(text)) == found


@pytest.mark.parametrize(
    "text", ["Is it?", "¿Es de nogal?", "Τι είναι;", "Τι είναι\u037e", "ما هذا؟", "这是什么？", "これは何ですか？", "Ի՞նչ է սա"]
)
def test_questions_end_in_the_mark_of_their_script(text: str) -> None:
    assert is_asked(text) and is_asked(f"{text}\n")


@pytest.mark.parametrize("text", ["It is.", "It is;", "Είναι.", "这是。", ""])
def test_other_texts_ask_nothing(text: str) -> None:
    assert not is_asked(text)


@pytest.mark.parametrize("text", ["It isn't.", "It is not.", "Without nails", "Nobody came.", "It can’t be."])
def test_negations(text: str) -> None:
    assert negated(text)


def test_words_that_hold_a_negation_are_none() -> None:
    assert not negated("A notable knot, and nor­mally so; nonetheless.".replace("\u00ad", ""))


@given(st.text())
def test_any_text_has_words(text: str) -> None:
    content_words(text)
    names(text)
    assert all(number and not number.startswith(",") for number in numbers(text))
