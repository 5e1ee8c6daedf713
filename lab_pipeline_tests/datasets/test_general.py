from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from lab_pipeline.datasets.general import SHIPPED, GeneralSetError, load_general
from lab_pipeline.text.leaks import LeakDetector
from lab_pipeline.text.questions import question_words

GOOD = json.dumps({"id": "g1", "category": "places", "question": "Q?", "answer": "A."})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("questions", "replay"):
        (tmp_path / f"{name}.jsonl").write_text(f"{GOOD}\n{GOOD}\n", encoding="utf-8")
    return tmp_path


def test_the_shipped_sets_hold_150_and_120_questions_of_many_kinds():
    sets = load_general(None)
    assert (len(sets.questions), len(sets.replay)) == (150, 120)
    rows = [*sets.questions, *sets.replay]
    assert len({row["id"] for row in rows}) == len({row["question"] for row in rows}) == 270
    assert all(row["question"].strip() and row["answer"].strip() for row in rows)
    assert len(Counter(row["category"] for row in sets.questions)) >= 5


def test_no_shipped_replay_question_resembles_a_test_question():
    sets = load_general(None)
    test = LeakDetector(question["question"] for question in sets.questions)
    tested = [(question["question"], question_words(question["question"])) for question in sets.questions]
    for replayed in sets.replay:
        assert test.leak(replayed["question"]) is None
        words = question_words(replayed["question"])
        for question, known in tested:
            assert len(words & known) / len(words | known) < 0.5, f"{replayed['question']} / {question}"


def test_a_folder_of_ones_own_replaces_the_shipped_sets(folder):
    sets = load_general(folder)
    assert (len(sets.questions), len(sets.replay)) == (2, 2)
    assert load_general(SHIPPED) == load_general(None)


@pytest.mark.parametrize(
    "line",
    ["{", "[]", '"text"', json.dumps({"id": "g1"}), GOOD.replace('"A."', "1"), GOOD.replace("{", '{"more": "", ', 1), ""],
)
def test_a_wrong_line_is_refused_by_file_and_line(folder, line):
    path = folder / "replay.jsonl"
    path.write_text(f"{GOOD}\n{line}\n{GOOD}\n", encoding="utf-8")
    with pytest.raises(GeneralSetError, match=re.escape(f"{path}:2: ")):
        load_general(folder)


def test_a_missing_file_is_refused_by_name(folder):
    (folder / "questions.jsonl").unlink()
    with pytest.raises(GeneralSetError, match=re.escape(str(folder / "questions.jsonl"))):
        load_general(folder)
