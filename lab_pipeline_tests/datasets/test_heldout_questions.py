from __future__ import annotations

import pytest

from lab_pipeline.core.errors import NotMaterialized
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import as_prompt
from lab_pipeline.core.storage import write_json
from lab_pipeline.datasets.heldout_questions import heldout_prompts, load_heldout
from lab_pipeline_tests.builders import GROUNDED, KNOWLEDGE
from lab_pipeline_tests.datasets.filled import GENERAL


def test_the_test_asks_the_held_out_questions_of_the_leaves_in_use(lab):
    heldout = lab.heldout()
    rows = {row["leaf"]: row for row in lab.snapshot().rows}
    assert {leaf: len(questions) for leaf, questions in heldout["leaves"].items()} == {
        leaf: row["held_out"] for leaf, row in rows.items()
    }
    assert heldout["leaves"][GROUNDED][0]["context"] and not heldout["leaves"][KNOWLEDGE][0]["context"]
    assert load_heldout(lab.home) == heldout
    assert lab.heldout([])["digest"] != heldout["digest"]


def test_heldout_prompts_are_those_of_leaves_general_and_withheld_each_once(lab):
    heldout = lab.heldout()
    question = heldout["leaves"][GROUNDED][0]
    prompts = heldout_prompts({**heldout, "withheld": [*heldout["withheld"], "Withheld once?"]})
    assert as_prompt(question["question"], question["context"])[0]["content"] in prompts
    assert {"Withheld once?", GENERAL[0]["question"]} <= set(prompts) and len(prompts) == len(set(prompts))


def test_held_out_questions_that_were_not_stored_or_by_a_release_that_withheld_less_are_refused(tmp_path):
    home = Home.open(tmp_path)
    for stored in (None, {"leaves": {}, "general": [], "digest": "d"}):
        if stored:
            write_json(home.datasets / "heldout.json", stored)
        with pytest.raises(NotMaterialized, match="materialize heldout_questions first"):
            load_heldout(home)
