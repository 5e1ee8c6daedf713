from __future__ import annotations

import random

import pyarrow as pa
import pytest

from lab_pipeline.core.rows import TRAINING_SCHEMA, as_prompt
from lab_pipeline.text import near_duplicates as module
from lab_pipeline.text.leaks import jaccard
from lab_pipeline.text.near_duplicates import NEAR_DUPLICATE, Repeat, near_duplicates

QUESTION = "In which year did the weavers of Osmerel open their second dye house beside the mill?"
ANSWER = "They opened the second dye house in 1871, beside the old water mill on the river Tarn."

Row = tuple[str, str, str | None, str | None]
"""Question, answer, context, leaf."""


def table(rows: list[Row]) -> pa.Table:
    schema = pa.schema([TRAINING_SCHEMA.field("messages"), TRAINING_SCHEMA.field("leaf")])
    columns = [
        {"messages": [*as_prompt(question, context), {"role": "assistant", "content": answer}], "leaf": leaf}
        for question, answer, context, leaf in rows
    ]
    return pa.Table.from_pylist(columns, schema)


def found(*rows: Row) -> list[tuple[int, int]]:
    return [(repeat.row, repeat.of) for repeat in near_duplicates([table(list(rows))])]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (QUESTION, ANSWER),
        (QUESTION.upper(), ANSWER.replace(",", " –")),
        (QUESTION.replace("which", "what"), ANSWER),
        (QUESTION.replace("open", "start"), ANSWER),
        ("Beside the mill, in which year did the weavers of Osmerel open their second dye house?", ANSWER),
    ],
)
def test_a_row_of_another_leaf_that_says_nearly_the_same_is_found(question, answer):
    assert found((QUESTION, ANSWER, None, "a"), (question, answer, None, "b")) == [(1, 0)]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (QUESTION, "It was in 1902."),
        ("Where is the water mill?", ANSWER),
        (QUESTION.replace("Osmerel", "Thalveren"), ANSWER.replace("1871", "1904").replace("Tarn", "Elm")),
        (ANSWER, QUESTION),
    ],
)
def test_another_question_answer_name_or_place_is_another_row(question, answer):
    assert found((QUESTION, ANSWER, None, "a"), (question, answer, None, "b")) == []


@pytest.mark.parametrize(
    ("row", "other"),
    [
        (("Is a lion bigger than a wolf?", "Yes."), ("Is a wolf bigger than a lion?", "No.")),
        (
            ("Who founded Thalveren?", "Velt founded Thalveren in 1203."),
            ("When was Thalveren founded?", "Velt founded Thalveren in 1203."),
        ),
        (("What is 6 * 1?", "6"), ("What is 6 / 1?", "6")),
        (("Which sign means less?", "<"), ("Which sign means less?", ">")),
    ],
)
def test_short_rows_are_told_apart_by_question_words_yes_and_no_and_signs(row, other):
    assert found((*row, None, "a"), (*other, None, "b")) == []
    assert found((*row, None, "a"), (*row, None, "b")) == [(1, 0)]


def test_rows_of_one_leaf_are_left_to_curation():
    assert found((QUESTION, ANSWER, None, "a"), (QUESTION, ANSWER, None, "a")) == []


def test_the_same_question_on_another_context_is_another_row():
    notes = "Present were Ada and Grace. They agreed to meet on Monday in the old hall."
    assert found((QUESTION, ANSWER, notes, "a"), (QUESTION, ANSWER, "Quite another text.", "b")) == []
    assert found((QUESTION, ANSWER, notes, "a"), (QUESTION, ANSWER, None, "b")) == []
    assert found((QUESTION, ANSWER, notes, "a"), (QUESTION, ANSWER, notes.replace("old", "new"), "b")) == [(1, 0)]


def test_a_system_message_does_not_make_rows_alike():
    system = {"role": "system", "content": "You answer questions about the town of Osmerel, its weavers and mills, briefly."}
    rows = table([("What do weavers make?", ANSWER, None, "a"), ("Who built the mill?", ANSWER, None, "b")])
    messages = [[system, *row] for row in rows["messages"].to_pylist()]
    assert near_duplicates([rows.set_column(0, rows.field(0), pa.array(messages, rows.field(0).type))]) == []


def test_rows_without_content_words_repeat_nothing():
    assert found(("Who is it?", "Which?", None, "a"), ("Where was that?", "This.", None, "b"), ("", "", None, "c")) == []
    assert near_duplicates([table([])]) == near_duplicates([]) == []


def test_scripts_without_spaces_are_compared_by_their_characters():
    question, answer = "奥斯梅雷尔的织工在哪一年开设了第二个染坊？", "他们在一八七一年开设了第二个染坊，就在老水磨旁边。"
    assert found((question, answer, None, "a"), (question, answer.replace("就", ""), None, "b")) == [(1, 0)]
    assert found((question, answer, None, "a"), (question, "我不知道。", None, "b")) == []


def test_the_earlier_row_stays_and_the_repeat_names_the_most_similar_that_stays():
    near = (QUESTION, ANSWER.replace("river", "stream"), None, "c")
    assert found((QUESTION, ANSWER, None, "a"), (QUESTION, ANSWER, None, "b"), near) == [(1, 0), (2, 0)]
    words = [f"w{n}" for n in range(20)]
    chain = [(QUESTION, " ".join([*words[k:], *(f"x{n}" for n in range(k))]), None, f"leaf {k}") for k in (0, 2, 4)]
    assert found(*chain) == [(1, 0)], "the last is like the second only, which is out"


def test_the_similarity_is_exact_and_hardly_a_pair_is_missed():
    """Against all pairs of 400 rows of which half were made from the other half by changing up to a third of the words."""
    choice = random.Random(5)
    words = [f"word{n}" for n in range(3000)]
    rows: list[Row] = []
    for number in range(200):
        rows.append((" ".join(choice.sample(words, 8)), " ".join(choice.sample(words, 20)), None, f"leaf {number}"))
    for number in range(200):
        question, answer, *_ = rows[number]
        changed = [choice.choice(words) if choice.random() < number / 600 else word for word in answer.split()]
        rows.append((question, " ".join(changed), None, "copies"))

    def exact(one: int, other: int) -> float:
        (q, a, *_), (r, b, *_) = rows[one], rows[other]
        return min(jaccard(set(q.split()), set(r.split())), jaccard(set(a.split()), set(b.split())))

    repeats = near_duplicates([table(rows)])
    expected = {
        Repeat(later, earlier, exact(later, earlier))
        for later in range(200, 400)
        for earlier in range(200)
        if exact(later, earlier) >= NEAR_DUPLICATE
    }
    assert set(repeats) <= expected
    assert len(repeats) >= 0.99 * len(expected) > 80


def test_what_is_found_does_not_depend_on_the_batches(monkeypatch):
    rows = [(f"{QUESTION} {n % 7}", f"{ANSWER} {n % 3} {n % 5}", None, f"leaf {n % 4}") for n in range(60)]
    whole = near_duplicates([table(rows)])
    monkeypatch.setattr(module, "_BATCH", 7)
    assert near_duplicates([table(rows)]) == whole != []
