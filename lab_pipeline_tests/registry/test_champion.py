from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lab_pipeline.registry.champion import PromotionRefused, current_champion, history, model_card, promote
from lab_pipeline.storage import Home, folder_digest, read_json, write_json, write_text

LEAVES = ["knowledge/islands", "compositional_skills/notes"]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path)


def evaluation(home: Home, candidate: str, reference: str = "base", promoted: bool = True) -> dict[str, Any]:
    """What an evaluation of a candidate would say; the candidate's files are written."""
    folder = home.root / "candidates" / candidate
    write_text(folder / "model" / "model.safetensors", f"weights of {candidate}")
    digest = folder_digest(folder / "model")
    write_json(folder / "candidate.json", {"id": candidate, "digest": digest})
    measured = {"base": 2.0, "candidate": 1.5}
    return {
        "candidate": candidate,
        "digest": digest,
        "reference": reference,
        "base_model": "tiny",
        "taxonomy_commit": "c0ffee",
        "catalog": dict.fromkeys(LEAVES, "rows"),
        "verdict": {"promoted": promoted, "outcome": "better" if promoted else "not better", "reason": "the numbers say so"},
        "heldout": measured,
        "general": measured,
        "leaves": [
            {"leaf": leaf, "kind": "knowledge", "contributor": "anna", "rows": 7, "document_commit": None} for leaf in LEAVES
        ],
        "datasets": {"knowledge": "k"},
        "recipe": {"lora": {}},
        "seed": 17,
    }


def files(home: Home) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in home.root.rglob("*") if path.is_file() and path.name != "lock"}


def test_a_verdict_in_favour_makes_the_candidate_champion(home):
    assert current_champion(home) is None
    champion = promote(home, evaluation(home, "one"))
    assert current_champion(home) == champion
    assert (champion.id, champion.catalog) == ("one", dict.fromkeys(LEAVES, "rows"))
    assert (champion.model / "model.safetensors").read_text(encoding="utf-8") == "weights of one"


def test_a_verdict_against_it_leaves_the_alias_and_all_files(home):
    promote(home, evaluation(home, "one"))
    against = evaluation(home, "two", "one", promoted=False)
    before = files(home)
    with pytest.raises(PromotionRefused, match="not better: the numbers say so"):
        promote(home, against)
    assert files(home) == before


def test_a_candidate_measured_against_an_earlier_champion_is_refused(home):
    one, two = evaluation(home, "one"), evaluation(home, "two")
    promote(home, one)
    before = files(home)
    with pytest.raises(PromotionRefused, match="measured against base, but the champion is one"):
        promote(home, two)
    assert files(home) == before


@pytest.mark.parametrize("change", ["edited", "added", "removed"])
def test_files_that_are_not_the_measured_ones_are_refused(home, change):
    promote(home, evaluation(home, "one"))
    two = evaluation(home, "two", "one")
    weights = home.root / "candidates" / "two" / "model" / "model.safetensors"
    if change == "edited":
        weights.write_bytes(b"other weights")
    elif change == "added":
        (weights.parent / "extra.py").write_bytes(b"")
    else:
        weights.unlink()
    with pytest.raises(PromotionRefused, match="files changed since they were measured"):
        promote(home, two)
    assert current_champion(home).id == "one"
    assert len(history(home)) == 1


def test_promoting_again_changes_nothing(home):
    one = evaluation(home, "one")
    champion = promote(home, one)
    before = files(home)
    assert promote(home, one) == champion
    assert files(home) == before


def test_promotions_at_the_same_time_are_one(home):
    one = evaluation(home, "one")
    with ThreadPoolExecutor(8) as threads:
        champions = list(threads.map(lambda _: promote(home, one), range(8)))
    assert {champion.id for champion in champions} == {"one"}
    assert len(history(home)) == 1


def test_the_history_grows_by_each_promotion(home):
    for name, reference in (("one", "base"), ("two", "one"), ("three", "two")):
        promote(home, evaluation(home, name, reference))
    assert [(entry["id"], entry["before"]) for entry in history(home)] == [("one", None), ("two", "one"), ("three", "two")]
    assert current_champion(home).id == "three"


def test_the_card_names_every_leaf_its_contributor_and_the_measures(home):
    text = model_card(evaluation(home, "one"))
    for said in (*LEAVES, "anna", "tiny", "c0ffee", "2.000", "1.500", "the numbers say so"):
        assert said in text


def test_card_and_lineage_lie_beside_the_model(home):
    one = evaluation(home, "one")
    folder = promote(home, one).model.parent
    assert (folder / "MODEL_CARD.md").read_text(encoding="utf-8") == model_card(one)
    lineage = read_json(folder / "lineage.json")
    assert lineage == {key: one[key] for key in lineage}
    assert {"digest", "base_model", "datasets", "leaves", "recipe", "seed"} <= lineage.keys()
