from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_pipeline.flows.flow import Stage
from lab_pipeline.instructions.replies import cut_at_labels, read_reply
from lab_pipeline.teacher.protocol import Reply

PAIRS = Stage(output="pairs", prompt="p", max_tokens=9)
QUESTIONS = Stage(output="question", prompt="p", max_tokens=9, several=3)


def pair(question: str, answer: str) -> tuple[dict[str, str], None]:
    return {"question": question, "answer": answer}, None


def read(stage: Stage, text: str, cut_off: bool = False) -> list[tuple[dict[str, str], str | None]]:
    return read_reply(stage, Reply(text, "length" if cut_off else "stop", 1, 1))


@pytest.mark.parametrize(
    "dress",
    [
        "Question: {}\nAnswer: {}\n",
        "question: {}\nANSWER: {}\n\n",
        "**Question:** {}\n**Answer:** {}\n\n",
        "**Question 7**: {}\n**Answer 7**: {}\n",
        "**Question #7**\n{}\n\n**Answer**\n{}\n---\n",
        "### Question 7\n{}\n### Answer\n{}\n\n***\n",
        "12. Question: {}\n    Answer: {}\n",
        "- Question: {}\n- Answer: {}\n",
        "[QUESTION] {}\n[ANSWER] {}\n",
        "[Question]: {}\n[Answer]: {}\n",
        "> Question 7: {}\n> Answer 7: {}\n",
        "Q: {}\nA: {}\n",
        "**Q7:** {}\n**A7:** {}\n",
        "Q 7: {}\r\nA 7: {}\r\n",
    ],
)
@pytest.mark.parametrize("preamble", ["", "Sure! Here are two questions and their answers:\n\n"])
def test_labels_are_known_in_whatever_dress(dress: str, preamble: str) -> None:
    text = preamble + dress.format("Who?", "Anna.") + dress.format("Where are\nthey?", "Here.\n\nAnd there.")
    assert read(PAIRS, text) == [pair("Who?", "Anna."), pair("Where are\nthey?", "Here.\n\nAnd there.")]


def test_a_label_inside_a_line_and_letters_beside_words_are_no_labels() -> None:
    text = "Question: Which is it?\nA: ham\nB: egg\nAnswer: The answer: A.\nQ: is a letter."
    assert read(PAIRS, text) == [pair("Which is it?\nA: ham\nB: egg", "The answer: A.\nQ: is a letter.")]


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("Question: a\nQuestion: b\nAnswer: c", ["answer missing", None]),
        ("Answer: a\nQuestion: b\nAnswer: c", ["question missing", None]),
        ("Question: a\nAnswer: b\nAnswer: c\nQuestion: d\nAnswer: e", [None, "question missing", None]),
        ("Question:\nAnswer: a\nQuestion: b\nAnswer:", ["question missing", "answer missing"]),
        ("Who is it? It is Anna.", ["no question and answer found"]),
        ("", ["no question and answer found"]),
    ],
)
def test_each_malformed_item_has_a_fault_of_its_own_and_spoils_no_other(text: str, faults: list[str | None]) -> None:
    items = read(PAIRS, text)
    assert [fault for _, fault in items] == faults
    assert all(columns["question"] and columns["answer"] for columns, fault in items if not fault)


def test_of_a_reply_that_was_cut_off_the_last_item_is_the_faulty_one() -> None:
    assert read(PAIRS, "Question: a\nAnswer: b\nQuestion: c\nAnswer: d", cut_off=True) == [
        pair("a", "b"),
        ({"question": "c", "answer": "d"}, "answer cut off at 9 tokens"),
    ]


def test_several_questions_and_what_is_none() -> None:
    assert read(QUESTIONS, "Question: a\n\n2. Question: b?\nQuestion:") == [
        ({"question": "a"}, None),
        ({"question": "b?"}, None),
        ({"question": ""}, "question missing"),
    ]
    assert read(QUESTIONS, "I would rather not.") == [({"question": "I would rather not."}, "no question found")]


WORDS = st.text(
    st.characters(codec="utf-8", exclude_characters="\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029*_=-"), min_size=1
).map(lambda text: f"so {text} then")


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=5))
def test_what_is_written_as_asked_is_read_as_written(pairs: list[tuple[str, str]]) -> None:
    text = "\n".join(f"Question: {question}\nAnswer: {answer}" for question, answer in pairs)
    assert read(PAIRS, text) == [pair(question, answer) for question, answer in pairs]


@given(
    st.lists(st.sampled_from(["Question:", "Answer:", "**Answer 2**", "Q:", "words", " ", "\n", "---", "[ANSWER]"])),
    st.booleans(),
)
def test_no_reply_is_ever_dropped_and_no_item_is_whole_by_accident(parts: list[str], cut_off: bool) -> None:
    for stage in (PAIRS, QUESTIONS):
        items = read(stage, "\n".join(parts), cut_off)
        assert items
        assert all(set(columns) == set(stage.columns) and all(columns.values()) for columns, fault in items if not fault)
        assert not cut_off or items[-1][1]


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        ("In 1904.\nWrong: In 1905.\nWrong: In 1940.", "In 1904.", ["In 1905.", "In 1940."]),
        ("In 1904.\n\n**Wrong answer 1:** In 1905.\n- Wrong answer 2:\nIn 1940.", "In 1904.", ["In 1905.", "In 1940."]),
        ("In 1904, which is not wrong: it is right.", "In 1904, which is not wrong: it is right.", []),
        ("Wrong: the lever is up.", "Wrong: the lever is up.", []),
        ("In 1904.\nWrong:", "In 1904.", [""]),
        ("", "", []),
    ],
)
def test_text_is_cut_at_the_labels_of_its_later_lines(text, before, after):
    assert cut_at_labels(text, ("wrong answer", "wrong")) == (before, after)
