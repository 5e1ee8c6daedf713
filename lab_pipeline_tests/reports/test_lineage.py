from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lab_pipeline.cli import app as cli
from lab_pipeline.cli import options
from lab_pipeline.config.settings import DatasetSettings, MixingSettings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import read_json, read_rows, write_json
from lab_pipeline.datasets.dataset import Dataset
from lab_pipeline.datasets.mix import mix_knowledge, mix_skills
from lab_pipeline.instructions.plan import leaf_state
from lab_pipeline.registry.champion import Signed, current_champion, history, promote, rollback
from lab_pipeline.reports.lineage import as_text, leaf_lineage, model_lineage, row_lineage, withdraw
from lab_pipeline.taxonomy.documents.reading import read_document
from lab_pipeline.taxonomy.withdrawals import withdrawals
from lab_pipeline_tests.builders import FREEFORM, GROUNDED, KNOWLEDGE, edit_yaml, word
from lab_pipeline_tests.datasets.filled import GENERAL, FilledHome
from lab_pipeline_tests.registry.promotions import LEAVES, evaluation
from lab_pipeline_tests.training.runs import recipe

RECIPE = recipe(
    knowledge={"epochs": 1, "learning_rate": 1e-3, "general_replay": 3},
    skills={"epochs": 1, "learning_rate": 1e-3, "general_replay": 2, "phase_1_replay": 0.5, "raft": 0.5},
)
REPLAY = [
    {**question, "id": f"r{number}", "question": f"Again: {question['answer']}"} for number, question in enumerate(GENERAL)
]

OWN = [
    {"messages": [{"role": "user", "content": f"{word(n)}?"}, {"role": "assistant", "content": f"{word('answer', n)}."}]}
    for n in range(8)
]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


def mixed(lab: FilledHome) -> tuple[Dataset, Dataset]:
    catalog, heldout = lab.catalog(), lab.heldout()
    knowledge = mix_knowledge(lab.home, catalog, heldout, REPLAY, RECIPE, lab.settings)
    return knowledge, mix_skills(lab.home, catalog, heldout, REPLAY, RECIPE, lab.settings, knowledge)


def squeezed(text: str) -> str:
    return " ".join(text.split())


def test_every_row_is_traced_to_its_leaf_and_the_very_span_of_its_document(lab, tmp_path):
    own = tmp_path / "mine.jsonl"
    own.write_text("".join(f"{json.dumps(row)}\n" for row in OWN))
    mixing = MixingSettings(knowledge=[DatasetSettings(path=str(own))])
    lab.settings = lab.settings.model_copy(update={"mixing": mixing})
    knowledge, skills = mixed(lab)
    counted: Counter[str] = Counter()
    own_replayed = 0
    for row in [*knowledge.read(), *skills.read()]:
        found = row_lineage(lab.home, row["id"])
        counted[row["source"]] += 1
        assert (found["row"], found["messages"], found["models"]) == (row["id"], row["messages"], [])
        assert as_text("row", found)
        if row["source"] == "general":
            assert found["leaf"] is None and "none: general question" in as_text("row", found)
            continue
        assert found["leaf"] == row["leaf"]
        if found["leaf"] is None:
            assert "none: custom data set, mine.jsonl:" in as_text("row", found)
            own_replayed += row["source"] == "replay"
        if found["leaf"] == KNOWLEDGE:
            start, end = found["span"]
            normalised = read_document(
                found["document"], "c", (lab.taxonomy / "documents" / found["document"]).read_bytes()
            ).text
            assert normalised[start:end] == found["text"]
            assert found["place"].startswith("line ")
            assert f"{found['document']}, {found['place']}, commit" in as_text("row", found)
            assert found["document_commit"].startswith("worktree:")
            assert ("replays" in found, "asks_again" in found) == (row["source"] == "replay", row["source"] == "raft")
        if row["source"] == "curated":
            assert (found["flow_version"] > 0, found["teacher"], found["judge"]) == (True, "scripted", "scripted")
            assert found["taxonomy_commit"] == "c" and found["prompts"]
            assert squeezed(found["support"]) in squeezed(found["text"]) if found["text"] else found["leaf"] != KNOWLEDGE
    assert counted.keys() == {"curated", "document", "general", "own", "raft", "replay", "seed"} and min(counted.values()) > 1
    assert own_replayed


def test_a_row_is_traced_after_its_leaf_has_changed_and_is_called_by_the_beginning_of_its_id(lab):
    knowledge, _ = mixed(lab)
    row = next(row for row in knowledge.read() if row["source"] == "curated")
    before = row_lineage(lab.home, row["id"])
    edit_yaml(lab.taxonomy / KNOWLEDGE / "qna.yaml", lambda value: value.update(document_outline="Another one."))
    lab.refresh(KNOWLEDGE)
    lab.catalog()
    assert row_lineage(lab.home, row["id"][:16]) == before


def test_a_row_in_no_data_set_is_traced_without_its_passage_if_the_frozen_leaf_is_gone(lab):
    state = leaf_state(lab.home, KNOWLEDGE)
    row = read_rows(lab.home.leaf(KNOWLEDGE) / f"curated-{state.curated}.parquet")[0]
    whole = row_lineage(lab.home, row["id"])
    lab.home.leaf_source(state.source).unlink()
    found = row_lineage(lab.home, row["id"])
    assert whole["place"] and found == {**whole, "place": None}
    assert row["support"] in as_text("row", found)


def test_a_row_that_is_none_or_several_is_said(lab):
    mixed(lab)
    with pytest.raises(LabError, match="row zz: no rows of a data set or a leaf have an id that begins so"):
        row_lineage(lab.home, "zz")
    with pytest.raises(LabError, match=r"row : \d+ rows of a data set have an id that begins so: .* \.\.\."):
        row_lineage(lab.home, "")


def test_the_champions_lineage_is_the_one_that_ships(home):
    with pytest.raises(LabError, match="no champion yet"):
        model_lineage(home, "champion")
    champion = promote(home, evaluation(home, "one"))
    assert model_lineage(home, "champion") == {**read_json(champion.model / "lineage.json"), "withdrawn": {}}
    evaluation(home, "two", "one", promoted=False)
    assert model_lineage(home, "two")["model"] == "two"
    with pytest.raises(LabError, match="twoo: no candidate of this id was evaluated; did you mean two"):
        model_lineage(home, "twoo")


def test_a_leaf_names_all_models_that_hold_it(home):
    promote(home, evaluation(home, "one"))
    promote(home, evaluation(home, "two", "one"))
    evaluation(home, "bad", "two", promoted=False)
    less = evaluation(home, "less", "two", promoted=False)
    less["leaves"] = less["leaves"][1:]
    write_json(home.evaluations / "less" / "evaluation.json", less)
    found = leaf_lineage(home, LEAVES[0])
    assert {each["model"]: (each["standing"], each["rows"]) for each in found["models"]} == {
        "one": ("earlier champion", 7),
        "two": ("champion", 7),
        "bad": ("candidate", 7),
    }
    assert "less" in {each["model"] for each in leaf_lineage(home, LEAVES[1])["models"]}
    assert "two: champion (better), 7 rows, taxonomy commit c0ffee" in as_text("leaf", found)


def test_a_withdrawn_leaf_is_named_on_the_models_that_hold_it_until_that_is_undone(home):
    champion = promote(home, evaluation(home, "one"))
    card = champion.model / "README.md"
    before = card.read_bytes()
    withdraw(home, LEAVES[0], "Anna", "wrong licence")
    assert f"- {LEAVES[0]}: withdrawn by Anna on" in card.read_text(encoding="utf-8")
    assert model_lineage(home, "champion")["withdrawn"].keys() == {LEAVES[0]}
    assert leaf_lineage(home, LEAVES[0])["withdrawn"].endswith("wrong licence")
    assert champion.verified, "the card is no part of what was measured"
    with pytest.raises(LabError, match="already withdrawn by Anna"):
        withdraw(home, LEAVES[0], "Bert", "again")
    withdraw(home, LEAVES[0], "Anna", "it was right", undo=True)
    assert card.read_bytes() == before and withdrawals(home) == {}
    with pytest.raises(LabError, match="not withdrawn, so there is nothing to undo"):
        withdraw(home, LEAVES[0], "Anna", "again", undo=True)


@pytest.mark.parametrize(("author", "reason"), [("", "why"), ("Anna", "  ")])
def test_nobody_withdraws_a_leaf_without_a_name_and_a_reason(home, author, reason):
    promote(home, evaluation(home, "one"))
    with pytest.raises(LabError, match="an author and a reason"):
        withdraw(home, LEAVES[0], author, reason)
    assert withdrawals(home) == {}


def test_an_unknown_leaf_is_answered_with_those_of_similar_names(lab):
    lab.snapshot()
    with pytest.raises(LabError, match=f"{FREEFORM}s: no such leaf; did you mean {FREEFORM}"):
        withdraw(lab.home, f"{FREEFORM}s", "Anna", "why")
    with pytest.raises(LabError, match=f"no such leaf; did you mean {GROUNDED}"):
        leaf_lineage(lab.home, "knowledge/somewhere/else/altogether/notes")
    assert withdrawals(lab.home) == {}


# --- the command line ---


def run(home: Home, *arguments: str) -> str:
    result = CliRunner().invoke(cli.app, [*arguments, "--home", str(home.root)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def prepared(home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home whose settings are there, with one champion and a rejected candidate."""
    monkeypatch.setattr(options, "prepare", lambda root, taxonomy: Home.open(root))
    home.settings_file.write_text("taxonomy: {path: .}\n")
    promote(home, evaluation(home, "one"))
    evaluation(home, "two", "one", promoted=False)
    return home


def test_promotion_against_the_gate_and_back_from_the_command_line(prepared):
    said = ("--author", "Anna", "--reason", "needed")
    assert str(prepared.champions / "two") in run(prepared, "promote", "two", *said)
    assert "override       by Anna on" in run(prepared, "lineage", "champion")
    assert str(prepared.champions / "one") in run(prepared, "rollback", *said)
    assert [move["event"] for move in history(prepared)] == ["promotion", "override", "rollback"]


def test_lineage_and_withdrawal_from_the_command_line(prepared):
    assert json.loads(run(prepared, "lineage", "champion", "--json"))["model"] == "one"
    said = run(prepared, "withdraw", f"{LEAVES[0]}/", "--author", "Anna", "--reason", "wrong licence")
    assert "withdrawn by Anna" in said and "one: champion" in said and "will leave it out" in said
    assert f"{LEAVES[0]}, withdrawn by Anna" in run(prepared, "lineage", "one")
    assert json.loads(run(prepared, "lineage", LEAVES[0], "--json"))["leaf"] == LEAVES[0]
    with pytest.raises(LabError, match="lineage row ROW_ID"):
        run(prepared, "lineage", "row")


def weights(home: Home) -> set[str]:
    folders = [path.parent for path in home.root.rglob("model.safetensors")]
    return {folder.relative_to(home.root).as_posix() for folder in folders}


def test_cleaning_up_lists_first_and_keeps_champions_and_the_last_candidate(prepared):
    def three(name: str, promoted: bool) -> dict[str, Any]:
        return evaluation(prepared, name, current_champion(prepared).id, promoted)

    promote(prepared, three("three", True))
    promote(prepared, three("four", True))
    write_json(prepared.evaluations / "last.json", three("last", False))
    all_of_them = weights(prepared)
    listed = run(prepared, "gc")
    freed = len("weights of two") + len("{}")  # the others' bytes have a second name among the champions
    assert weights(prepared) == all_of_them and f"({freed} bytes) in 4 folders. Nothing was removed" in listed
    assert f"Removed 0.0 MiB ({freed} bytes) in 4 folders." in run(prepared, "gc", "--delete")
    assert weights(prepared) == {"candidates/last/model", "champions/one", "champions/three", "champions/four"}
    rollback(prepared, Signed("Anna", "why"))
    run(prepared, "gc", "--delete", "--keep", "1")
    assert weights(prepared) == {"candidates/last/model", "champions/three"}
    assert current_champion(prepared).verified
    with pytest.raises(LabError, match="no merged weights of this candidate"):
        run(prepared, "promote", "two", "--author", "Anna", "--reason", "needed")
