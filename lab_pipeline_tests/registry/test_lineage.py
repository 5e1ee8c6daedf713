from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, ModelCardData, metadata_load
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from lab_pipeline.config.teachers import PACKAGED
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import digest, write_json, write_text
from lab_pipeline.models.base_model import base_licence, hub_id, model_identity
from lab_pipeline.registry.card import model_card
from lab_pipeline.registry.lineage import build_lineage
from lab_pipeline.taxonomy.withdrawals import Withdrawal
from lab_pipeline_tests.registry.promotions import LEAVES, evaluation

WITHDRAWN = {
    leaf: Withdrawal(leaf, True, "Bert", "wrong licence", "2026-02-03T00:00:00+00:00") for leaf in [LEAVES[0], "other"]
}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path)


@pytest.fixture
def lineage(home: Home) -> dict[str, Any]:
    made = {
        "flow": "simple_knowledge",
        "version": 3,
        "prompts": {"answer.yaml": "abc"},
        "teacher": "t",
        "judge": "j",
        "source": "s",
    }
    write_json(home.leaf(LEAVES[0]) / "made-c.json", made)
    return build_lineage(home, evaluation(home, "one"), [])


def test_the_lineage_says_how_each_leafs_rows_were_made_where_that_was_written_down(lineage):
    first, second = lineage["leaves"]
    assert first["made_from"]["prompts"] == {"answer.yaml": "abc"} and second["made_from"] is None
    assert first["works"][0]["licence"] == "CC-BY-4.0" and "attribution" not in first


def test_the_card_flags_what_is_not_for_commercial_use(home, lineage):
    assert "commercial use" not in model_card(lineage, {})
    lineage["leaves"][0]["works"][0]["licence"] = "CC-BY-NC-SA-4.0"
    assert "**Not for commercial use, as far as it learned from works under CC-BY-NC-SA-4.0.**" in model_card(lineage, {})


def test_the_card_is_one_that_the_hubs_library_reads(home, lineage, tmp_path):
    """What it checks without the network: the front matter is a YAML block, a dictionary, of the fields that it knows. The
    hub's check of the values (`RepoCard.validate`) asks huggingface.co, so it is not made here."""
    path = tmp_path / "README.md"
    path.write_text(model_card({**lineage, "base_model_id": "some/model"}, {}), encoding="utf-8")
    card = ModelCard.load(path)
    assert isinstance(card.data, ModelCardData)
    assert metadata_load(path) == card.data.to_dict()
    assert card.data.to_dict() == {
        "base_model": "some/model",
        "library_name": "transformers",
        "license": "other",
        "license_name": "unknown",
        "pipeline_tag": "text-generation",
        "tags": ["lab", "qlora", "synthetic-data", "instructlab-taxonomy"],
    }


def test_the_card_says_what_it_was_taught_by_and_how_well_it_learned(lineage):
    text = model_card(lineage, {})
    said = (*LEAVES, "anna", "tiny", "c0ffee", "2.000", "1.500", "-0.700 to -0.300", "not measurable", "the numbers say so")
    assert "skills phase: Epoch 2 of 3 was taken: it has the lowest loss." in text
    for each in (*said, "CC-BY-4.0", "simple_knowledge 3", "islands.md", '"rank": 4', lineage["digest"]):
        assert each in text, each
    assert "Withdrawn" not in text and "against the gate" not in text


def test_the_card_of_an_earlier_releases_model_is_written_still(lineage):
    assert "was taken" not in model_card({key: value for key, value in lineage.items() if key != "chosen"}, {})


def test_the_card_names_the_withdrawn_leaves_that_the_model_holds(lineage):
    text = model_card(lineage, WITHDRAWN)
    assert f"- {LEAVES[0]}: withdrawn by Bert on 2026-02-03: wrong licence" in text
    assert "- other" not in text


def test_the_card_names_what_was_taken_out_and_what_is_left_of_it(lineage):
    gone = {"leaf": "knowledge/gone", "questions": 5, "base": 6.0, "champion": 4.0, "candidate": 5.3, "still_known": 0.0}
    text = model_card({**lineage, "unlearned": [{**gone, "interval": [-1.6, 0.2]}]}, {})
    assert "- knowledge/gone: Nothing is left for certain: its right answers are 2.0 times as likely" in text
    assert "and chance allows 0.82 to 5.0 times; with the old model it was 7.4 times." in text
    assert "Taken out" not in model_card(lineage, {})


@given(st.text(alphabet=st.sampled_from("|<>&`[]()!\\\n\r# -{}%ab"), min_size=1))
def test_no_contributor_breaks_the_cards_tables_or_smuggles_markup_in(lineage_of_one, text):
    leaf = {**lineage_of_one["leaves"][0], "contributor": text}
    parsed = MarkdownIt("commonmark").enable("table").parse(model_card({**lineage_of_one, "leaves": [leaf]}, {}))
    data = next(at for at, token in enumerate(parsed) if token.content == "Training data")
    kinds = {child.type for token in parsed for child in token.children or []} | {token.type for token in parsed}
    assert not kinds & {"html_inline", "html_block", "image"}
    tables = [token.type for token in parsed[data:] if token.type in ("tr_open", "td_open")]
    assert tables[:9] == ["tr_open", "tr_open", *["td_open"] * 6, "tr_open"]


@pytest.fixture(scope="module")
def lineage_of_one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    home = Home.open(tmp_path_factory.mktemp("home"))
    return build_lineage(home, evaluation(home, "one"), [])


@pytest.mark.parametrize(
    ("identity", "expected"),
    [("org/model", "org/model"), ("folder@abc", None), (model_identity(PACKAGED), "HuggingFaceTB/SmolLM2-135M-Instruct")],
)
def test_the_base_model_is_named_as_the_hub_knows_it(identity, expected):
    assert hub_id(identity) == expected


def test_the_licence_is_what_the_base_models_own_card_states(home):
    folder = home.root / "base"
    write_text(folder / "README.md", "---\nlicense: mit\n---\n# Base\n")
    write_json(home.models / f"{digest('base@1')}.json", {"folder": str(folder)})
    assert base_licence(home, "base@1") == "mit"
    write_text(folder / "README.md", "# no front matter\n")
    assert base_licence(home, "base@1") == base_licence(home, "unheard/of") == "other"
    assert base_licence(home, model_identity(PACKAGED)) == "apache-2.0"
