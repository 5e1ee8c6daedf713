from __future__ import annotations

import re
from functools import cache

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from lingua import Language

from lab_pipeline.curation.phrases import FILE, compiled, find

WRITTEN = yaml.safe_load(FILE.read_text(encoding="utf-8"))
KINDS = [kind for kind in WRITTEN if kind != "definitions"]
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789 '.?!,üßéèáíóúñ\n’"


@pytest.mark.parametrize("kind", KINDS)
def test_phrases_stand_under_known_languages_and_use_known_definitions(kind: str) -> None:
    languages = {language.name.capitalize() for language in Language.all()} | {"Any"}
    assert WRITTEN[kind].keys() - {"triggers"} <= languages
    pattern, _ = compiled(kind)
    assert not re.search(r"\{[A-Z_]+\}", pattern.pattern)


@cache
def _texts(kind: str) -> st.SearchStrategy[str]:
    """Texts with phrases of a kind."""
    return st.from_regex(re.compile(compiled(kind)[0].pattern, re.MULTILINE), alphabet=st.sampled_from(ALPHABET))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "triggers" in WRITTEN[kind]])
@given(st.data())
def test_no_phrase_lacks_a_trigger_of_its_kind(kind: str, data: st.DataObject) -> None:
    pattern, _ = compiled(kind)
    text = data.draw(_texts(kind))
    assert (find(kind, text) is None) == (pattern.search(text) is None)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("refusal", "Je ne sais pas."),
        ("points_at_source", "Was gilt laut Dokument?"),
        ("points_at_source", "Was steht laut diesem Abschnitt fest?"),
        ("points_at_source", "¿Qué dice según este pasaje?"),
        ("points_at_source", "What does it say in it?"),
    ],
)
def test_phrases_are_found_at_the_end_of_a_text_and_in_each_language(kind: str, text: str) -> None:
    assert find(kind, text)
