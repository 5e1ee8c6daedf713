from __future__ import annotations

from itertools import combinations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_pipeline.text.leaks import SAME_QUESTION, LeakDetector, jaccard, may_repeat
from lab_pipeline.text.questions import question_words
from lab_pipeline_tests.curation.test_duplicates import ASKING_OTHERWISE, ASKING_THE_SAME, EXCHANGED

WORDS = "amber birch cedar dune ember fjord grove heath inlet jetty knoll ledge marsh north oasis pond reef".split()
QUESTIONS = [f"Where is the {a} of {b}, {c} and {d}?" for a, b, c, d in combinations(WORDS, 4)]
"""Questions of which no two are nearly the same: they share three of five content words at most."""

SHEET = " ".join(f"Pin {number} of the {name} board carries {number} volts." for number, name in enumerate(WORDS))
LOG = f"Monday\n\n{SHEET}\n\nEnd of log"

KNOWN = "Who invented the Osmerel loom in Harsk?"


@pytest.mark.parametrize("context", [SHEET, LOG])
def test_a_held_out_question_on_a_long_context_is_a_leak_wherever_it_stands_and_however_it_is_put(context: str) -> None:
    known = f"{context}\n\nWhich board carries the most volts?"
    test = LeakDetector([known])
    for asked in (
        known,
        f"{context}\n \nSo which of the boards carries most VOLTS?",
        f"{context}\nWhich board carries the most volts?",
        f"Which board carries the most volts?\n\n{context}",
        f"{context.replace('amber', 'azure')}\n\nWhich board carries the most volts?",
        context,
    ):
        assert test.leak(asked) == known, asked
    for asked in ("Name the pins in reverse order.", "Which board carries the least current?"):
        assert test.leak(f"{context}\n\n{asked}") is None


@pytest.mark.parametrize(
    "asked",
    [
        "Who invented the Osmerel loom in Harsk?",
        "who INVENTED   the osmerel loom in harsk",
        "In Harsk, by whom was the Osmerel loom invented?",
        "Who was it that invented this Osmerel loom in Harsk?",
        "Which person invented the Osmerel loom in Harsk?",
    ],
)
def test_the_same_question_in_near_words_or_another_order_is_a_leak(asked: str) -> None:
    assert LeakDetector([KNOWN]).leak(asked) == KNOWN


@pytest.mark.parametrize(
    "asked",
    [
        "Who repaired the Osmerel loom in Harsk?",
        "Who invented the Osmerel loom?",
        "Who invented the Thalveren clock in Harsk?",
        "What is the Osmerel loom made of?",
        "Who?",
        "",
        "?",
    ],
)
def test_a_different_question_is_no_leak(asked: str) -> None:
    assert LeakDetector([KNOWN]).leak(asked) is None


@pytest.mark.parametrize(
    ("asked", "known"),
    [
        *ASKING_OTHERWISE,
        *EXCHANGED[-2:],
        (
            "A long belt of the big mill in old Harsk moves 12 heavy stones a day. How many a week?",
            "A long belt of the big mill in old Harsk moves 15 heavy stones a day. How many a week?",
        ),
    ],
)
def test_a_question_of_the_same_words_for_another_thing_or_with_other_numbers_is_no_leak(asked: str, known: str) -> None:
    assert LeakDetector([known]).leak(asked) is None
    assert LeakDetector([asked]).leak(known) is None


@pytest.mark.parametrize(
    ("asked", "known"),
    [
        *ASKING_THE_SAME,
        *EXCHANGED[:-2],
        ("Tell me the founder of Thalveren.", "Who founded Thalveren?"),
        (
            "What was the name of the person who founded the old river town of Thalveren in the green valley of Harsk?",
            "Who founded the old river town of Thalveren in the green valley of Harsk?",
        ),
        (
            "In what year did they build the tall old stone bridge of Harsk over the river?",
            "When did they build the tall old stone bridge of Harsk over the river?",
        ),
        (
            "How heavy are the stones that the long belt of the big mill in old Harsk moves?",
            "How heavy are the 12 stones that the long belt of the big mill in old Harsk moves?",
        ),
    ],
)
def test_in_doubt_a_question_of_the_same_words_is_a_leak(asked: str, known: str) -> None:
    assert LeakDetector([known]).leak(asked) == known
    assert LeakDetector([asked]).leak(known) == asked


def test_questions_made_of_stop_words_alone_are_compared_by_those() -> None:
    assert LeakDetector(["Who is it?"]).leak("who is it")
    assert LeakDetector(["Who is it?"]).leak("What was that?") is None


def test_a_grounded_question_leaks_only_together_with_its_text() -> None:
    detector = LeakDetector(["Anna waters tall plants on Friday.\n\nWho waters them?"])
    assert detector.leak("Anna waters tall plants on Friday.\n\nWho waters them?")
    assert detector.leak("Peter sells old clocks in March.\n\nWho waters them?") is None


def test_a_detector_without_questions_finds_nothing() -> None:
    assert LeakDetector([]).leak("Who invented the loom?") is None


QUESTION = st.sampled_from(QUESTIONS[::99])


@given(st.lists(QUESTION, max_size=5), QUESTION)
def test_a_leak_is_found_exactly_where_one_of_all_pairs_is_near(known: list[str], asked: str) -> None:
    near = [each for each in known if _jaccard(each, asked) >= 0.8]
    assert LeakDetector(known).leak(asked) == (near[0] if near else None)


def _jaccard(one: str, other: str) -> float:
    words = question_words(one), question_words(other)
    return len(words[0] & words[1]) / len(words[0] | words[1])


@given(
    known=st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=9), max_size=12),
    asked=st.lists(st.sampled_from([*WORDS, "the", "which"]), max_size=10),
)
def test_no_leak_is_missed_by_looking_at_the_rarest_words_only(known, asked):
    questions, question = [" ".join(words) for words in known], " ".join(asked)
    similar = [each for each in questions if jaccard(question_words(each), question_words(question)) >= SAME_QUESTION]
    assert LeakDetector(questions).leak(question) == (similar[0] if similar and asked else None)


@given(
    known=st.lists(st.lists(st.sampled_from([*WORDS, "the", "which"]), max_size=9).map(" ".join), max_size=12),
    asked=st.lists(
        st.lists(st.sampled_from([*WORDS, "the", "which's", "30 C", "\x1c"]), max_size=12).map(" ".join), max_size=20
    ),
)
def test_leaks_among_many_texts_are_those_of_each(known, asked):
    test = LeakDetector(known)
    alone = {place: leak for place, text in enumerate(asked) if (leak := test.leak(text))}
    assert test.leaks_among(pa.array(["left out", *asked], pa.string()).slice(1)) == alone


PIECES = st.sampled_from(  # each with something that stems, folded case or tokens might change
    (
        "who what Harsk Harsk's slipping slips the loom looms 1,000 C++ straße STRASSE שָׁלוֹם مُدَرِّس 港口 é don't - ; inventor "
        "jetty jetties"
    ).split()
)
ASKED = st.lists(PIECES, max_size=8).map(" ".join)


@given(ASKED, st.lists(ASKED, max_size=6))
def test_no_known_question_that_a_prompt_repeats_is_missed_by_the_quick_test(prompt: str, known: list[str]) -> None:
    assert set(LeakDetector(known).leaks(prompt)) <= set(may_repeat(prompt, known))
    assert list(LeakDetector(may_repeat(prompt, known)).leaks(prompt)) == list(LeakDetector(known).leaks(prompt))
