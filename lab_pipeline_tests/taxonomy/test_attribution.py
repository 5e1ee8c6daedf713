from __future__ import annotations

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_pipeline.core.rows import TRAINING_SCHEMA
from lab_pipeline.datasets.rows import seed_row, with_licences
from lab_pipeline.taxonomy.attribution import is_non_commercial, licences, non_commercial_lines, spdx, works
from lab_pipeline.taxonomy.leaf import read_leaf
from lab_pipeline_tests.builders import FREEFORM, write_skill

NC = "Title of work: Words\nLink to work: -\n\nLicense of the work: CC BY-NC-SA 4.0\nCreator names: Li\n"


def test_an_attribution_names_its_works_one_after_the_other():
    text = (
        "Title of work: One\nLicense of the work: CC-BY-4.0\nCreator names: A, B\n\n"
        "title of work:Two\nLink to work: https://example.org/a\nRevision: 1\nLicence:  MIT License \n"
    )
    assert works(text) == [
        {"title": "One", "licence": "CC-BY-4.0", "creators": "A, B"},
        {"title": "Two", "link": "https://example.org/a", "licence": "MIT"},
    ]
    assert licences(text) == ["CC-BY-4.0", "MIT"]
    assert works(None) == works("nothing of the kind") == licences(None) == []


@given(st.text())
def test_any_attribution_is_read(text):
    assert all(found for found in works(text))
    assert {licence for _, licence in non_commercial_lines(text)} == {
        each for each in licences(text) if is_non_commercial(each)
    }


@pytest.mark.parametrize(
    ("stated", "name", "non_commercial"),
    [
        ("Apache-2.0", "Apache-2.0", False),
        ("Apache License, Version 2.0", "Apache-2.0", False),
        ("apache 2", "Apache-2.0", False),
        ("The MIT License", "MIT", False),
        ("BSD 3-Clause License", "BSD-3-Clause", False),
        ("CC-BY-SA-4.0", "CC-BY-SA-4.0", False),
        ("CC BY-NC-SA 4.0", "CC-BY-NC-SA-4.0", True),
        ("cc-by-nc-nd-3.0", "CC-BY-NC-ND-3.0", True),
        ("Creative Commons Attribution-ShareAlike 4.0 International Public License", "CC-BY-SA-4.0", False),
        ("Creative Commons Attribution-NonCommercial 4.0 International", "CC-BY-NC-4.0", True),
        ("Creative Commons Attribution Non-Commercial NoDerivatives v4.0", "CC-BY-NC-ND-4.0", True),
        ("CC0 1.0 Universal", "CC0-1.0", False),
        ("CC BY", "CC-BY", False),
        # what is no one licence, or does not say which one, stays as it is
        ("CC-BY-4.0 and MIT", "CC-BY-4.0 and MIT", False),
        ("GPL 3", "GPL 3", False),
        ("Public domain", "Public domain", False),
        ("free for non-commercial use", "free for non-commercial use", True),
        ("as NCSA says", "as NCSA says", False),
    ],
)
def test_a_licence_is_called_by_its_spdx_id_and_flagged_if_not_for_commercial_use(stated, name, non_commercial):
    assert spdx(stated) == name == spdx(name)
    assert is_non_commercial(stated) == is_non_commercial(name) == non_commercial


def test_a_leaf_not_for_commercial_use_is_usable_with_a_warning_at_the_line(tmp_path):
    qna = write_skill(tmp_path, FREEFORM)
    (qna.parent / "attribution.txt").write_text(NC)
    reading = read_leaf(tmp_path, FREEFORM)
    assert reading.usable
    (problem,) = reading.problems
    assert (problem.severity, problem.line) == ("warning", 4)
    assert str(problem).startswith(f"{FREEFORM}/attribution.txt:4: licence CC-BY-NC-SA-4.0 does not allow commercial use")


def test_a_row_carries_the_licences_of_its_leaf():
    row = seed_row(FREEFORM, {"asked": "Who?", "answer": "Anna."})
    rows = pa.Table.from_pylist([row, {**row, "leaf": None}], TRAINING_SCHEMA)
    licensed, of_no_leaf = with_licences(rows, {FREEFORM: ["MIT"]}).to_pylist()
    assert json.loads(licensed["metadata"]) == {"licences": ["MIT"]}
    assert {**licensed, "metadata": "{}"} == row
    assert of_no_leaf == {**row, "leaf": None}
