"""The graph as a whole, through the command line's own path: real runs in processes of their own, a tiny base model."""

import html
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from peft import PeftModel

from lab_pipeline.config.settings import load_settings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import read_json
from lab_pipeline.datasets.dataset import load_dataset
from lab_pipeline.definitions import defs
from lab_pipeline.defs.partitions import LEAVES, partition_of
from lab_pipeline.evaluation.evaluate import last_evaluation
from lab_pipeline.models.base_model import fetch_base, model_identity
from lab_pipeline.models.loader import load_model
from lab_pipeline.registry.candidate import load_candidate
from lab_pipeline.registry.champion import current_champion
from lab_pipeline.reports.cleanup import dispensable
from lab_pipeline.reports.lineage import model_lineage
from lab_pipeline.reports.status import status_report
from lab_pipeline.runtime.command import retune
from lab_pipeline.training.checkpoint import load_checkpoint, read_spec
from lab_pipeline_tests.builders import FREEFORM, GROUNDED, KNOWLEDGE, edit_yaml, write_knowledge, write_taxonomy
from lab_pipeline_tests.lab import OPEN_GATE, TestLab, lab, obliging
from lab_pipeline_tests.stub_endpoint import Answer
from lab_pipeline_tests.webhook import webhook


@pytest.fixture(scope="module")
def hook():
    with webhook() as opened:
        yield opened


@pytest.fixture(scope="module")
def life(tmp_path_factory, tiny_model, hook):
    folder = tmp_path_factory.mktemp("life")
    with pytest.MonkeyPatch.context() as patch:
        with lab(folder, write_taxonomy(folder / "taxonomy"), tiny_model, patch) as opened:
            # whether a random model passes is left to chance: what follows holds either way
            opened.set(gate={"minimum_gain": 0.0, "general_tolerance": 50.0, "unchanged_tolerance": 50.0})
            opened.set(notifications={"webhook_env": "LAB_TEST_WEBHOOK"})
            patch.setenv("LAB_TEST_WEBHOOK", hook.url)
            yield opened


def run(opened: TestLab) -> tuple[dict, list[str]]:
    said: list[str] = []
    return retune(opened.home, said.append), said


def red_leaves(leaves: list[str]) -> set[str]:
    with dg.DagsterInstance.get() as instance:
        standing = instance.get_status_by_partition(
            dg.AssetKey("curated_instructions"), [partition_of(leaf) for leaf in leaves], LEAVES
        )
    return {leaf for leaf in leaves if standing[partition_of(leaf)].value == "FAILED"}


def test_a_home_from_its_first_retune_through_edits_breakage_and_failure(life, hook, hostile_folder, monkeypatch):
    monkeypatch.chdir(hostile_folder)
    first, said = run(life)
    assert {leaf["status"] for leaf in first["leaves"].values()} == {"refreshed"}
    assert all(leaf["kept"] > 0 for leaf in first["leaves"].values()), first["leaves"]
    assert first["teacher_calls"] == life.calls() > 0
    assert first["training_steps"] > 0
    assert first["champion"]["id"] if first["promoted"] else first["champion"] is None
    assert first["heldout"]["questions"] == sum(leaf["questions"] for leaf in first["heldout"]["leaves"].values())
    assert any("teacher calls" in line for line in said) and any("training steps" in line for line in said)
    told = [line for line in said if line.startswith(("expected: ", "teacher calls: "))]
    assert re.match(r"expected: about \d+ calls, [\d,]+ prompt and [\d,]+ completion tokens, no time measured yet$", told[0])

    champion = first["champion"]
    assert hook.texts == [f"New champion {champion['id']}: {first['verdict']}"] if first["promoted"] else len(hook.texts) == 1

    # again: nothing to do, and it says so
    calls, told = life.calls(), len(hook.texts)
    second, said = run(life)
    assert second["nothing_changed"] and any("nothing changed" in line for line in said)
    assert (second["teacher_calls"], second["training_steps"], life.calls()) == (0, 0, calls)
    assert second["champion"] == champion and len(hook.texts) == told

    # a leaf broken after it was good: named with file and line, its last good rows stay
    qna = life.taxonomy / GROUNDED / "qna.yaml"
    good = qna.read_text()
    qna.write_text(good + "surprise: true\n")
    third, said = run(life)
    broken = third["leaves"][GROUNDED]
    line = len(good.splitlines()) + 1
    assert broken["status"] == "quarantined" and broken["kept"] > 0
    assert any(f"{GROUNDED}/qna.yaml:" in problem and "surprise" in problem for problem in broken["problems"]), (broken, line)
    assert any(f"{GROUNDED}/qna.yaml:" in text for text in said)
    assert len([text for text in hook.texts if text.startswith("Quarantined") and f"{GROUNDED}/qna.yaml:" in text]) == 1
    assert life.calls() == calls
    with dg.DagsterInstance.get() as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("taxonomy_snapshot"))
        keys = defs.resolve_asset_graph().get_all_asset_keys() - {dg.AssetKey("champion_model")}  # nothing was promoted
        events = {key: instance.get_latest_materialization_event(key) for key in keys}
    assert "surprise" in json.dumps(event.asset_materialization.metadata["all_problems"].value)
    for key, made in events.items():
        assert made.asset_materialization.metadata["page"].value.startswith("http://127.0.0.1:3001/"), key
    qna.write_text(good)

    # one used seed of a leaf edited, whose generation raises: exactly that partition is red, the others' rows are kept
    source = read_json(life.home.leaf_source(_fingerprint(life, FREEFORM)))
    used = source["seeds"][0]["question"]

    def change(value):
        next(seed for seed in value["seed_examples"] if seed["question"].strip() == used)["answer"] = "Quite another answer."

    edit_yaml(life.taxonomy / FREEFORM / "qna.yaml", change)
    edit_yaml(life.taxonomy / GROUNDED / "qna.yaml", lambda value: value.update(task_description="Another wording"))
    life.stub.reply = lambda asked: (
        Answer(status=400, body="no") if "Quite another answer" in json.dumps(asked.body) else obliging(asked)
    )
    fourth, said = run(life)
    statuses = {leaf: about["status"] for leaf, about in fourth["leaves"].items()}
    assert statuses[FREEFORM] == "failed" and statuses[GROUNDED] == "refreshed" and statuses[KNOWLEDGE] == "current"
    assert red_leaves(list(fourth["leaves"])) == {FREEFORM}
    assert any("HTTP 400" in problem for problem in fourth["leaves"][FREEFORM]["problems"])
    assert fourth["leaves"][FREEFORM]["kept"] > 0


def test_a_rejected_candidate_moves_no_alias_even_if_promotion_is_started_alone(life, hook):
    before, calls = current_champion(life.home), life.calls()
    hook.requests.clear()
    life.set(gate={"minimum_gain": 90.0, "general_tolerance": 50.0, "unchanged_tolerance": 50.0})

    # the server mends its ways: calls for the leaf that failed alone, then a retune
    life.stub.reply = obliging
    rejected, said = run(life)
    assert {leaf for leaf, about in rejected["leaves"].items() if about["status"] == "refreshed"} == {FREEFORM}
    assert rejected["teacher_calls"] == life.calls() - calls == rejected["leaves"][FREEFORM]["teacher_calls"] > 0
    assert red_leaves(list(rejected["leaves"])) == set()
    assert not rejected["nothing_changed"] and rejected["training_steps"] > 0
    assert not rejected["promoted"]
    assert current_champion(life.home) == before
    assert any("not promoted" in line for line in said)
    (told,) = hook.texts
    assert "not promoted" in told and rejected["verdict"] in html.unescape(told) and rejected["report"] in told
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "dagster",
            "asset",
            "materialize",
            "-m",
            "lab_pipeline.definitions",
            "--select",
            "champion_model",
        ],
        env=dict(os.environ),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert current_champion(life.home) == before
    with dg.DagsterInstance.get() as instance:
        report = instance.get_latest_materialization_event(dg.AssetKey("evaluation_report")).asset_materialization.metadata
        (kept, *_) = instance.fetch_observations(dg.AssetKey("champion_model"), limit=2).records
    read_first = ["verdict", "promoted", "why", "what_to_do_next", "right_base"]
    assert list(report)[: len(read_first)] == read_first
    assert report["verdict"].value == rejected["verdict"] and report["what_to_do_next"].value == rejected["next"]
    assert len(str(report["heldout_base"].value)) <= 6
    assert rejected["reason"] in kept.asset_observation.description
    assert kept.asset_observation.metadata["promoted"].value is False

    # after a rejection, too, an unchanged taxonomy is left alone
    calls = life.calls()
    again, _ = run(life)
    assert again["nothing_changed"] and life.calls() == calls and again["training_steps"] == 0
    assert hook.texts == [told]


def test_nothing_stored_names_the_homes_place(life):
    place, apart = str(life.home.root).encode(), ("dagster", "logs")  # events link to files, logs are of this machine
    files = [path for path in life.home.root.rglob("*") if path.is_file()]
    found = [path.relative_to(life.home.root) for path in files if place in path.read_bytes()]
    assert [str(path) for path in found if path.parts[0] not in apart] == []


def test_a_copied_home_works_alone(life, tmp_path, tiny_model):
    copy = Home.open(Path(shutil.copytree(life.home.root, tmp_path / "elsewhere" / "copy", symlinks=True)))
    original, away = life.home.root, life.home.root.with_name("away")
    original.rename(away)
    try:
        report = status_report(copy)
        assert report["behind"] == [] and report["nothing_changed"]
        evaluation = last_evaluation(copy)
        assert evaluation and Path(report["report"]).is_file() and Path(report["report"]).is_relative_to(copy.root)
        assert model_lineage(copy, evaluation["candidate"])
        assert all(folder.is_relative_to(copy.root) for folder in dispensable(copy))
        load_model(load_candidate(copy, evaluation["candidate"]).model, "cpu")
        base = fetch_base(copy, load_settings(copy.settings_file))
        checkpoint = load_checkpoint(copy.checkpoints / evaluation["checkpoints"]["skills"])
        assert checkpoint and checkpoint.adapter
        adapted = PeftModel.from_pretrained(load_model(base.folder, "cpu"), checkpoint.adapter)
        assert adapted.peft_config["default"].base_model_name_or_path == base.identity == model_identity(str(tiny_model))
        spec = read_spec(checkpoint.folder / "spec.json")
        assert {Path(spec.dataset).parent, Path(spec.base_model).parent} == {copy.datasets, copy.models}
        assert (Path(spec.output), Path(str(spec.continued)).is_dir()) == (checkpoint.folder, True)
        assert not original.exists()
    finally:
        away.rename(original)


def test_a_first_run_without_a_teacher_promotes_nothing_and_says_why(tmp_path, tiny_model):
    with (
        pytest.MonkeyPatch.context() as patch,
        lab(tmp_path, write_taxonomy(tmp_path / "taxonomy"), tiny_model, patch) as opened,
    ):
        opened.stub.reply = lambda asked: Answer(status=401, body="who are you")
        with pytest.raises(LabError, match="(?s)no leaf has a row to train on.*HTTP 401"):
            run(opened)
        assert current_champion(opened.home) is None


def test_why_training_failed_is_said_in_the_terminal_and_in_the_event_log(life, monkeypatch):
    monkeypatch.setenv("LAB_GPUS", "99")
    recipe = Path(str(load_settings(life.home.settings_file).recipe))
    edit_yaml(recipe, lambda value: value.update(weight_decay=0.001))
    said: list[str] = []
    with pytest.raises(LabError, match=r"retune failed: LAB_GPUS: expected .*; see run .*\.log"):
        retune(life.home, said.append)
    (told,) = [line for line in said if line.startswith("[") and "failed:" in line]
    assert told.startswith("[knowledge_checkpoint] failed: LAB_GPUS: expected ")
    edit_yaml(recipe, lambda value: value.pop("weight_decay"))


@pytest.mark.long
def test_a_taxonomy_without_skills_is_taught_measured_and_promoted(tmp_path, tiny_model):
    taxonomy = tmp_path / "taxonomy"
    write_knowledge(taxonomy, KNOWLEDGE, "documents")
    with pytest.MonkeyPatch.context() as patch, lab(tmp_path, taxonomy, tiny_model, patch) as opened:
        opened.set(gate=OPEN_GATE)
        edit_yaml(tmp_path / "recipe.yaml", lambda value: value["knowledge"].update(learning_rate=0.02, epochs=3))
        report, _ = run(opened)
        assert report["leaves"][KNOWLEDGE]["kept"] > 0 and report["heldout"]["questions"] > 0
        assert load_dataset(opened.home, "skills").by_source.keys() == {"replay", "general"}
        assert report["promoted"], report["reason"]


def test_the_command_line_shows_the_same_history_from_another_directory(life, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "lab_pipeline.cli.app", "status", "--json", "--home", str(life.home.root)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(done.stdout)
    assert report["home"] == str(life.home.root)
    assert KNOWLEDGE in report["leaves"] and report["behind"] == []
    with dg.DagsterInstance.get() as instance:
        shown = instance.get_runs(dg.RunsFilter(tags={"dagster/code_location": "lab_pipeline"}))
        assert {run.job_name for run in shown} >= {"snapshot_taxonomy", "refresh_leaves", "retune"}
    assert not list(tmp_path.iterdir())


def _fingerprint(opened: TestLab, leaf: str) -> str:
    return read_json(opened.home.leaf(leaf) / "state.json")["source"]
