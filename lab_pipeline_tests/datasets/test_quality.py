from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pyarrow as pa
import pytest

from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import TRAINING_SCHEMA
from lab_pipeline.datasets.quality import (
    SUITES,
    ExpectationResult,
    load_suite,
    store_results,
    stored_results,
    training_frame,
    validate,
)
from lab_pipeline_tests.training.runs import twelve_rows

Violation = Callable[[pd.DataFrame], pd.DataFrame]


def curated() -> pd.DataFrame:
    rows = [
        {"id": f"r{n}", "leaf": "a/leaf", "question": f"What is {n}?", "answer": f"It is {n}.", "fault": None}
        for n in range(20)
    ]
    return pd.DataFrame(rows)


def training() -> pd.DataFrame:
    return training_frame(pa.Table.from_pylist(twelve_rows(), TRAINING_SCHEMA))


def cell(column: str, value: object) -> Violation:
    """One wrong value among good ones."""
    return lambda frame: frame.assign(**{column: [value, *frame[column][1:]]})


GOOD = {"curated_rows": curated, "training_rows": training}
VIOLATIONS: dict[str, dict[str, Violation]] = {
    "curated_rows": {
        "ids_are_unique": cell("id", "r1"),
        "questions_are_present": cell("question", ""),
        "answers_are_present": cell("answer", ""),
        "rows_name_their_leaf": cell("leaf", None),
        "rows_are_complete": cell("fault", "the teacher said nothing"),
        "answers_are_not_endless": cell("answer", "word " * 1000),
    },
    "training_rows": {
        "data_is_not_empty": lambda frame: frame[:0],
        "ids_are_unique": lambda frame: pd.concat([frame, frame[:1]]),
        "conversations_end_with_an_answer": cell("last_role", "user"),
        "prompts_are_present": cell("prompt", ""),
        "answers_are_present": cell("answer", ""),
        "sources_are_known": cell("source", "elsewhere"),
        "parts_are_known": cell("part", ""),
        "no_markup_leaks_into_answers": cell("answer", "Yes.<|im_end|>"),
        "answers_vary": lambda frame: frame.assign(answer="Yes."),
    },
}


def failed(findings: list[ExpectationResult]) -> list[str]:
    return [finding.name for finding in findings if not finding.passed]


def test_every_suite_is_proved_here():
    assert {path.stem for path in SUITES.glob("*.yaml")} == set(VIOLATIONS)


@pytest.mark.parametrize("name", sorted(GOOD))
def test_good_data_meet_every_expectation(name):
    findings = validate(GOOD[name](), name)
    assert failed(findings) == []
    assert [finding.name for finding in findings] == [each.name for each in load_suite(name)]


@pytest.mark.parametrize("name", sorted(GOOD))
def test_each_expectation_and_no_other_fails_on_data_that_violate_it(name):
    suite = load_suite(name)
    assert {each.name for each in suite} == set(VIOLATIONS[name]), "an expectation without a violation here, or the reverse"
    for each in suite:
        frame = VIOLATIONS[name][each.name](GOOD[name]())
        findings = validate(frame, name)
        (found,) = (finding for finding in findings if finding.name == each.name)
        assert not found.passed
        assert failed(findings) == [each.name] or frame.empty
        assert found.severity == each.severity and found.observed


def test_a_finding_shows_examples_of_what_was_wrong():
    findings = {finding.name: finding for finding in validate(cell("source", "elsewhere")(training()), "training_rows")}
    assert findings["sources_are_known"].observed == "1 of 12 rows unexpected, such as 'elsewhere'"


def test_results_are_stored_with_what_was_asked(tmp_path):
    home = Home.open(tmp_path)
    assert stored_results(home, "knowledge_dataset") is None
    findings = validate(cell("source", "elsewhere")(training()), "training_rows")
    store_results(home, "knowledge_dataset", "training_rows", 12, findings)
    stored = stored_results(home, "knowledge_dataset")
    assert (
        stored
        and stored["rows"] == 12
        and [each["name"] for each in stored["results"] if not each["passed"]] == ["sources_are_known"]
    )
    (found,) = (each for each in stored["results"] if each["name"] == "sources_are_known")
    assert "elsewhere" in found["observed"] and found["expectation"] == "expect_column_values_to_be_in_set"
    assert "curated" in found["arguments"]["value_set"]


def test_the_prompt_is_all_but_the_last_message():
    messages = [{"role": role, "content": text} for role, text in [("system", "Be kind."), ("user", "Q?"), ("assistant", None)]]
    rows = [{**row, "messages": messages} if number == 1 else row for number, row in enumerate(twelve_rows())]
    frame = training_frame(pa.Table.from_pylist(rows, TRAINING_SCHEMA).slice(1))
    assert frame.iloc[0][["prompt", "answer", "last_role"]].to_list() == ["Be kind.\nQ?", "", "assistant"]
    assert frame.iloc[1]["prompt"] == rows[2]["messages"][0]["content"]


def test_the_table_of_no_rows_has_its_columns():
    assert list(training_frame(TRAINING_SCHEMA.empty_table()).columns) == list(training().columns)
