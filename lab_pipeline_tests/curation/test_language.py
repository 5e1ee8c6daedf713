"""Rows that the rule on language rejects and keeps (`test_rules.py` tests them), and tests of what it rests on."""

from __future__ import annotations

import pytest

from lab_pipeline.curation.profile import profile
from lab_pipeline.text.language import languages, main_language, telling_words
from lab_pipeline_tests.curation.rows import POLITE, POLITE_LEAF, answer, check, polite, row

REJECTED = {
    "other_language": [
        row(
            question="Woraus ist der Rahmen von dem hohen Haus?",
            answer="Der Rahmen ist aus sehr schwerem Holz gebaut.",
            support=None,
        ),
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
}

KEPT = {
    "other_language": [
        row(),
        answer("Pellira Donsk", question="Who is Hask Orrowin?"),
        answer("deer antler", question="What is the name of the shuttle?"),
        polite('Make this more polite: "Call Zoe."', "Could you call Zoe Vukotić and Iñigo Szczepański?"),
        polite('Make this more polite: "Tom left."', "Gluteus maximus"),
        polite('Make this more polite: "Sum 3α."', "Could you please sum 3α for me?"),
        polite("How can I say more kindly `kubectl get pods -n x`?", "Could you please run `kubectl get pods -n x`?"),
    ],
}


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Who founded Vuwatutoto? It was Rugonuvoza who did. Vuwatutoto lies on the river Gineponusi.", "English"),
        ("Wer hat Vuwatutoto gegründet? Das war der alte König, nach dem es heute noch heißt.", "German"),
        ("谁发明了织布机? 佩利拉发明了它。", "Chinese"),
        ("12 — 13", None),
    ],
)
def test_a_leafs_language_is_found_behind_its_invented_names(text: str, language: str | None) -> None:
    assert main_language([text] * 6) == language


def test_an_emoticon_is_in_no_language() -> None:
    assert check("other_language", polite("Print two faces that point at each other.", "(☞ﾟヮﾟ)☞ ☜(ﾟヮﾟ☜)"), POLITE_LEAF) is None


def test_a_leaf_of_few_words_has_no_clear_language() -> None:
    assert main_language([]) is None
    assert main_language(["What is the frame made of? The frame is made of wood."]) is None


def test_names_code_and_figures_tell_no_language() -> None:
    text = "Run `kubectl get pods` at 18:00, see https://example.org/x or Osmerel's x_1 (a.b) first:\n```\nfor x in y\n```"
    assert telling_words(text) == ["Run", "at", "see", "or", "first:"]


def test_a_language_has_a_high_probability_on_its_own_words_only() -> None:
    words = "le cadre est fabriqué en bois de noyer"
    assert languages(words)["French"] > 0.9
    assert languages(words)["English"] < 0.001


def test_the_leafs_own_words_are_not_another_language_however_strange() -> None:
    strange = "heureux, joyeux et content"
    broken = check("other_language", polite(strange, strange), POLITE_LEAF)
    assert broken is not None
    known = profile({**POLITE, "passages": [{"heading": "", "text": strange}]})
    assert check("other_language", polite(strange, strange), known) is None
