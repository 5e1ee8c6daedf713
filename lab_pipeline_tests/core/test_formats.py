from hypothesis import given
from hypothesis import strategies as st

from lab_pipeline.core.formats import printable


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
