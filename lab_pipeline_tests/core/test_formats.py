import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_pipeline.core.formats import did_you_mean, duration, printable


def test_a_terminal_is_told_what_it_would_have_obeyed():
    assert printable("red \x1b[31m, bell \x07, right to left \u202e") == r"red \x1b[31m, bell \x07, right to left \u202e"


@given(st.text())
def test_lines_stay_and_nothing_else_controls(text):
    shown = printable(text)
    assert shown.count("\n") == text.count("\n")
    assert all(letter.isprintable() or letter in "\n\t" for letter in shown)


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S"])))
def test_ordinary_text_stays_as_it_is(text):
    assert printable(text) == text


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "1 s"), (89, "89 s"), (100, "2 min"), (1380, "23 min"), (7800, "2 h 10 min"), (10**6, "11 days 13 h")],
)
def test_a_time_is_said_as_people_say_it(seconds, said):
    assert duration(seconds) == said


def test_an_unknown_name_is_answered_with_those_like_it_or_with_what_there_is():
    leaves = ["knowledge/places/islands", "knowledge/places/hills", "compositional_skills/writing"]
    assert did_you_mean("knowledge/places/island", leaves).startswith("did you mean knowledge/places/islands")
    assert did_you_mean("islands", leaves) == "did you mean knowledge/places/islands?"
    assert did_you_mean("zzz", []) == "there are: none yet"
    assert did_you_mean("zzz", map(str, range(99)), most=2) == "there are: 0, 1, and 97 more"
