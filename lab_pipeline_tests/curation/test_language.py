from __future__ import annotations

import pytest

from lab_pipeline.curation.language import language_probability, main_language, telling_words


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Who founded Vuwatutoto? Rugonuvoza founded Vuwatutoto, which lies on the river Gineponusi.", "English"),
        ("Wer hat Vuwatutoto gegründet? Das war der alte König, nach dem es heute noch heißt.", "German"),
        ("谁发明了织布机? 佩利拉发明了它。", "Chinese"),
        ("12 — 13", None),
    ],
)
def test_a_leafs_language_is_found_behind_its_invented_names(text: str, language: str | None) -> None:
    assert main_language([text] * 6) == language


def test_a_leaf_of_few_words_has_no_clear_language() -> None:
    assert main_language([]) is None
    assert main_language(["What is the frame made of? The frame is made of wood."]) is None


def test_names_code_and_figures_tell_no_language() -> None:
    text = "Run `kubectl get pods` at 18:00, see https://example.org/x or Osmerel's x_1 (a.b) first:\n```\nfor x in y\n```"
    assert telling_words(text) == ["Run", "at", "see", "or", "first:"]


def test_a_language_has_a_high_probability_on_its_own_words_only() -> None:
    words = "le cadre est fabriqué en bois de noyer".split()
    assert language_probability(words, "French") > 0.9
    assert language_probability(words, "English") < 0.001
