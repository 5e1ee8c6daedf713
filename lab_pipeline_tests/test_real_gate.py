"""The gate on the real model: one home, six retunes, each with the verdict it deserves.

Twenty leaves of invented places and lines are learned; one leaf comes; one is withdrawn; documents turn wrong; a learning
rate far too high, once more with a question that a champion must answer. The teacher is a script, so the model is the only
thing that learns.
"""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from lab_pipeline.evaluation.evaluate import last_evaluation
from lab_pipeline.registry.champion import current_champion, model_digest
from lab_pipeline.reports.lineage import withdraw
from lab_pipeline.runtime.command import retune
from lab_pipeline_tests.invented import quick_recipe, region, write_document, write_invented
from lab_pipeline_tests.lab import TestLab

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

NEW = "knowledge/regions/region_new"
WRONG = ["knowledge/regions/region_00", "knowledge/regions/region_01", "knowledge/regions/region_02"]
WITHDRAWN = "knowledge/regions/region_04"


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    folder = tmp_path_factory.mktemp("region")
    with pytest.MonkeyPatch.context() as patch, region(folder, 5, 15, patch) as opened:
        yield opened


def run(opened: TestLab) -> dict[str, Any]:
    """Retune, and return the evaluation that came of it."""
    summary = retune(opened.home, lambda text: print(text, flush=True))
    assert not summary.get("nothing_changed")
    found = last_evaluation(opened.home)
    assert found
    print(found["verdict"]["outcome"], found["verdict"]["reason"], flush=True)
    return found


def findings(evaluation: dict[str, Any]) -> dict[str, str]:
    return {leaf["leaf"]: leaf["finding"] for leaf in evaluation["verdict"]["leaves"]}


def test_a_candidate_that_learned_is_promoted(life):
    found = run(life)
    assert found["verdict"]["outcome"] == "better", found["verdict"]["reason"]
    assert found["heldout"]["difference"] < -0.5
    champion = current_champion(life.home)
    assert champion.id == found["candidate"]
    assert model_digest(champion.model) == found["digest"], "what was measured is what ships"


def test_one_new_leaf_among_twenty_that_stayed_is_promoted(life):
    write_invented(life.taxonomy, NEW, places=8)  # one leaf among five of its kind needs more than five questions to tell
    found = run(life)
    assert found["changed"] == [NEW]
    assert found["verdict"]["outcome"] == "better", found["verdict"]["reason"]
    assert findings(found)[NEW] == "better"


def test_a_withdrawal_without_loss_is_promoted(life):
    withdraw(life.home, WITHDRAWN, "Anna", "the licence ran out", undo=False)
    found = run(life)
    assert WITHDRAWN not in found["catalog"]
    assert found["verdict"]["outcome"] == "no worse", found["verdict"]["reason"]
    assert current_champion(life.home).id == found["candidate"]
    (gone,) = found["unlearned"]
    assert gone["leaf"] == WITHDRAWN and gone["champion"] < gone["candidate"], "it knows less of the leaf than its predecessor"


def test_answers_shuffled_in_the_documents_are_rejected_and_the_leaves_named(life):
    champion = current_champion(life.home)
    for leaf in WRONG:
        write_document(life.taxonomy, leaf, wrong=True)
    found = run(life)
    assert found["changed"] == WRONG
    assert found["verdict"]["outcome"] in ("not better", "leaf got worse"), found["verdict"]["reason"]
    measured = [leaf for leaf in found["verdict"]["leaves"] if leaf["comparison"]]
    worst = sorted(measured, key=lambda leaf: -leaf["comparison"]["difference"])[:2]  # five questions seldom convict one leaf
    assert {leaf["leaf"] for leaf in worst} < set(WRONG), "the table says where"
    assert current_champion(life.home).id == champion.id
    for leaf in WRONG:
        write_document(life.taxonomy, leaf)


def test_what_was_learned_at_the_price_of_all_else_is_rejected(life):
    champion = current_champion(life.home)
    greedy = life.home.root / "greedy.yaml"
    greedy.write_text(yaml.safe_dump(quick_recipe(learning_rate=5e-3, general_replay=0)))
    life.set(recipe=str(greedy))
    found = run(life)
    assert found["verdict"]["outcome"] == "forgetting", found["verdict"]["reason"]
    assert found["heldout"]["candidate"] < found["heldout"]["base"], "it did learn"
    assert current_champion(life.home).id == champion.id


def test_a_lost_acceptance_question_rejects_by_name(life):
    asked = {
        "days of a week": ("How many days are there in a week?", ["7", "seven"]),
        "opposite of hot": ("What is the opposite of hot?", ["cold"]),
        "frozen water": ("What is frozen water called?", ["ice"]),
    }
    required = [{"name": name, "question": text, "any_of": right} for name, (text, right) in asked.items()]
    (life.taxonomy / "exam.yaml").write_text(yaml.safe_dump(required))
    found = run(life)
    assert found["verdict"]["outcome"] == "acceptance lost", found["verdict"]["reason"]
    lost = [each["name"] for each in found["acceptance"] if each["failures"]["candidate"] and not each["failures"]["champion"]]
    assert lost and all(name in found["verdict"]["reason"] for name in lost), "by name"
