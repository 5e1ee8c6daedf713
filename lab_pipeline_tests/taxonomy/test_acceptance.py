from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab_pipeline.core.home import Home
from lab_pipeline.taxonomy.acceptance import read_exams
from lab_pipeline.taxonomy.holdout import withheld_questions
from lab_pipeline.taxonomy.withdrawals import record_withdrawal
from lab_pipeline_tests.builders import FREEFORM, KNOWLEDGE, as_yaml, edit_yaml, settings_for, write_knowledge, write_taxonomy
from lab_pipeline_tests.datasets.filled import FilledHome

GOOD = {"name": "no price", "question": "What does the blue bridge cost today?", "declines": True}


def write_exam(taxonomy: Path, *entries: dict[str, Any], leaf: str = "") -> Path:
    path = taxonomy / leaf / "exam.yaml"
    path.write_text(as_yaml(list(entries)), encoding="utf-8")
    return path


@pytest.fixture
def lab(tmp_path: Path) -> FilledHome:
    """A home that has not read its taxonomy yet."""
    return FilledHome(Home.open(tmp_path / "home"), settings_for(write_taxonomy(tmp_path / "taxonomy")))


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("- name: a\n  question: b\n", 1, "says nothing of the answer"),
        ("- name: a\n  question: ' '\n  any_of: [x]\n", 2, "question: expected a text, found a blank one"),
        ("- name: a\n  question: b\n  declines: true\n  any_of: [x]\n", 1, "cannot be asked to contain"),
        ("- name: a\n  question: b\n  contains: [x]\n", 3, "contains: unknown key; known are name, question"),
        ("- name: a\n  question: b\n  any_of: ['']\n", 3, "any_of.0: "),
        ("- name: a\n  question: b\n  any_of: [x]\n- name: a\n  question: c\n  any_of: [x]\n", 4, "stands at line 1 already"),
        ("name: a\n", 1, "expected a list of entries"),
        ("- [a\n", 2, ""),
        ("".join(f"- {{name: n{n}, question: q, declines: true}}\n" for n in range(201)), 201, "at most 200"),
    ],
)
def test_what_is_wrong_is_said_with_its_line_and_no_question_of_the_file_counts(tmp_path, text, line, says):
    (tmp_path / "exam.yaml").write_text(text)
    (exam,) = read_exams(tmp_path)
    assert not exam.questions
    assert exam.problems[0].line == line and says in exam.problems[0].message
    assert (exam.problems[0].file, exam.problems[0].rule) == ("exam.yaml", "exam")


def test_files_that_nobody_reads_are_problems(tmp_path):
    taxonomy = write_taxonomy(tmp_path / "taxonomy")
    for path in ("exam.yml", "knowledge/exam.yaml", f"{FREEFORM}/EXAM.yaml"):
        (taxonomy / path).write_text(as_yaml([GOOD]))
    (taxonomy / KNOWLEDGE / "exam.yaml").symlink_to(taxonomy / "exam.yml")
    found = {problem.file: problem.message for exam in read_exams(taxonomy) for problem in exam.problems}
    assert sorted(found) == sorted(["exam.yml", "knowledge/exam.yaml", f"{FREEFORM}/EXAM.yaml", f"{KNOWLEDGE}/exam.yaml"])
    assert "rename it" in found["exam.yml"] and "not followed" in found[f"{KNOWLEDGE}/exam.yaml"]


def test_questions_of_leaves_and_of_the_whole_taxonomy_are_in_the_test(lab):
    write_exam(lab.taxonomy, GOOD)
    write_exam(
        lab.taxonomy,
        {**GOOD, "name": "b", "question": "Who built the old tower?", "any_of": ["Ann"], "declines": False},
        leaf=FREEFORM,
    )
    lab.refresh()
    assert [(each["leaf"], each["name"]) for each in lab.heldout()["acceptance"]] == [(FREEFORM, "b"), ("", "no price")]
    before = lab.heldout()["digest"]
    record_withdrawal(lab.home, FREEFORM, "Anna", "gone")
    assert [each["leaf"] for each in lab.heldout()["acceptance"]] == [""], "nobody is asked what a withdrawn leaf taught"
    assert lab.heldout()["digest"] != before


def test_a_question_is_withheld_for_ever_and_a_seed_that_repeats_it_is_held_out(lab):
    file = write_exam(lab.taxonomy, GOOD, leaf=KNOWLEDGE)
    lab.snapshot()
    file.unlink()
    assert GOOD["question"] in withheld_questions(lab.home)
    write_knowledge(lab.taxonomy, "knowledge/new", "documents")
    pair = {"question": GOOD["question"], "answer": "Nothing."}
    edit_yaml(
        lab.taxonomy / "knowledge/new/qna.yaml", lambda value: value["seed_examples"][0]["questions_and_answers"].append(pair)
    )
    (row,) = (row for row in lab.snapshot().rows if row["leaf"] == "knowledge/new")
    assert GOOD["question"] in [each["question"] for each in row["heldout_questions"]]


def test_a_question_that_is_taught_already_is_set_aside_with_a_note(lab):
    lab.refresh()
    seed = lab.home.leaf_source(lab.snapshot().usable[KNOWLEDGE]).read_text()
    question = "Who founded " + seed.split("Who founded ")[1].split('"')[0]
    write_exam(lab.taxonomy, {"name": "known", "question": question, "any_of": ["x"]})
    snapshot = lab.snapshot()
    assert snapshot.exam == [] and any("exam.yaml:1: 'known' repeats" in note for note in snapshot.notes)


def test_a_slip_of_the_pen_abolishes_no_policy(lab):
    file = write_exam(lab.taxonomy, GOOD)
    assert len(lab.snapshot().exam) == 1
    file.write_text("- name: a\n")
    snapshot = lab.snapshot()
    assert [each["name"] for each in snapshot.exam] == ["no price"]
    assert any(note.startswith("exam.yaml:1: ") and "earlier questions hold" in note for note in snapshot.notes)
    file.unlink()
    assert lab.snapshot().exam == []
