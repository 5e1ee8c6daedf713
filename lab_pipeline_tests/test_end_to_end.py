"""The real thing, cut small: the packaged 135M model as teacher and student, from the command line to the champion."""

import json
import os
import shutil
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import pytest
import yaml
from transformers import AutoModelForCausalLM

from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import read_json
from lab_pipeline.datasets.catalog import current_catalog, frozen_leaf
from lab_pipeline.datasets.dataset import load_dataset
from lab_pipeline.datasets.heldout_questions import heldout_prompts, load_heldout
from lab_pipeline.runtime.launcher import SAMPLE_TAXONOMY
from lab_pipeline.teacher.journal import read_journal
from lab_pipeline.text.leaks import LeakDetector
from lab_pipeline_tests.builders import edit_yaml
from lab_pipeline_tests.models.packaged import assert_unpacked_to_plain_bf16_weights_that_answer_sensibly

KNOWLEDGE = "knowledge/geography/thalveren"
SKILL = "foundational_skills/reasoning/temporal/order_of_events"
FLOWS = Path(__file__).parents[1] / "lab_pipeline" / "flows"
RECIPES = Path(__file__).parents[1] / "lab_pipeline" / "config" / "recipes"


def small_taxonomy(root: Path) -> Path:
    for part in (KNOWLEDGE, SKILL, "documents/thalveren"):
        shutil.copytree(SAMPLE_TAXONOMY / part, root / part)
    document = root / "documents/thalveren/thalveren.md"
    sections = document.read_text().split("\n## ")
    document.write_text("\n## ".join(sections[:2]))
    return root


def lab_pipeline(home: Path, *arguments: str, expect: int = 0, typed: str = "") -> str:
    environment = {key: value for key, value in os.environ.items() if key not in ("LAB_HOME", "DAGSTER_HOME")}
    done = subprocess.run(
        [sys.executable, "-m", "lab_pipeline.cli.app", *arguments, "--home", str(home)],
        env={
            **environment,
            "HF_HUB_OFFLINE": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
        },  # threads that spin starve the tests beside it
        input=typed,
        capture_output=True,
        text=True,
    )
    assert done.returncode == expect, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.timeout(1200)
def test_a_small_taxonomy_becomes_a_measured_model_that_learned_it(tmp_path):
    taxonomy, home = small_taxonomy(tmp_path / "taxonomy"), tmp_path / "home"
    flow = shutil.copytree(FLOWS / "simple_freeform_skill", tmp_path / "one_each")
    edit_yaml(flow / "flow.yaml", lambda value: value["start"].update(repeats=1))
    recipe = tmp_path / "recipe.yaml"
    shutil.copy(RECIPES / "smollm2_135m_cpu.yaml", recipe)
    edit_yaml(recipe, lambda value: (value["knowledge"].update(epochs=1), value["skills"].update(epochs=1)))
    edit_yaml(recipe, lambda value: value.update(validation={"share": 0.0, "general": 0}))
    home.mkdir()
    settings = {"taxonomy": {"path": str(taxonomy)}, "flows": {"freeform_skill": str(flow)}, "recipe": str(recipe)}
    (home / "settings.yaml").write_text(yaml.safe_dump({**settings, "exam": {"most": 0}}))

    said = lab_pipeline(home, "retune", "--summary", str(tmp_path / "first.json"))
    first = json.loads((tmp_path / "first.json").read_text())
    assert set(first) >= {
        *("home", "leaves", "teacher_calls", "training_steps", "heldout", "general", "promoted", "reason"),
        *("champion", "seconds", "peak_rss_mib"),
    }
    for leaf in (KNOWLEDGE, SKILL):
        assert first["leaves"][leaf]["status"] == "refreshed"
        assert first["leaves"][leaf]["generated"] >= first["leaves"][leaf]["kept"] > 0
    assert first["teacher_calls"] > 0 and first["training_steps"] > 0
    learned = first["heldout"]["leaves"][KNOWLEDGE]
    assert learned["questions"] == 8
    assert learned["candidate"] < learned["base"] - 0.2
    assert 500 < first["peak_rss_mib"] < 8192
    assert "kept of generated" in said and first["reason"] in said
    assert (first["champion"] is not None) == first["promoted"]
    assert Path(first["report"]).read_text().startswith("# Promoted" if first["promoted"] else "# Not promoted")
    assert_unpacked_to_plain_bf16_weights_that_answer_sensibly(Home.open(home))

    started = time.monotonic()
    said = lab_pipeline(home, "retune", "--summary", str(tmp_path / "second.json"))
    assert time.monotonic() - started < 60
    second = json.loads((tmp_path / "second.json").read_text())
    assert (second["teacher_calls"], second["training_steps"]) == (0, 0)
    assert second["champion"] == first["champion"] and "Nothing changed" in said


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_sample_is_promoted_and_no_exam_question_of_it_is_taught(tmp_path):
    said = lab_pipeline(tmp_path / "home", "retune", "--taxonomy", str(SAMPLE_TAXONOMY), "--summary", str(tmp_path / "it.json"))
    assert json.loads((tmp_path / "it.json").read_text())["promoted"], said[-2000:]
    home = Home.open(tmp_path / "home")
    heldout, leaves = load_heldout(home), current_catalog(home).in_use
    assert all(len(questions) > 2 for questions in heldout["exam"].values())
    tested = LeakDetector(heldout_prompts(heldout))
    assert all(tested.leak(f"Tell me: {each['question']}") for each in chain(*heldout["exam"].values())), (
        "planted leaks are found"
    )
    for phase in ("knowledge", "skills"):
        rows = load_dataset(home, phase).read()
        taught = [turn["content"] for row in rows for turn in row["messages"] if turn["role"] == "user"]
        assert taught and not [text for text in taught if tested.leak(text)]
    for leaf in leaves:
        assert not [seed for seed in frozen_leaf(home, leaf)["seeds"] if tested.leak(seed["asked"])], "prompts show these"
        journals = [home.leaf(leaf["leaf"]) / name for name in ("journal", "exam-journal")]
        rows_keys, exam_keys = ({key for key, _ in read_journal(journal)} for journal in journals)
        assert rows_keys and not rows_keys & exam_keys


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_copied_home_works_when_its_original_is_gone(tmp_path):
    """With the packaged model: two champions, a copy elsewhere, and nothing left of the original."""
    taxonomy, home = small_taxonomy(tmp_path / "taxonomy"), tmp_path / "home"
    gate = {"minimum_gain": 0.0, "retrain_noise": 0.01, "confidence": 0.6, "general_tolerance": 9.0, "unchanged_tolerance": 9.0}
    recipe = tmp_path / "recipe.yaml"
    shutil.copy(RECIPES / "smollm2_135m_cpu.yaml", recipe)
    edit_yaml(recipe, lambda value: (value["knowledge"].update(epochs=2), value["skills"].update(epochs=1)))
    home.mkdir()
    settings = {"taxonomy": {"path": str(taxonomy)}, "recipe": str(recipe), "gate": gate, "exam": {"most": 0}}
    (home / "settings.yaml").write_text(yaml.safe_dump(settings))
    champions = []
    for seed in (17, 18):
        (home / "settings.yaml").write_text(yaml.safe_dump({**settings, "seed": seed}))
        lab_pipeline(home, "retune", "--summary", str(tmp_path / "summary.json"))
        summary = json.loads((tmp_path / "summary.json").read_text())
        if not summary["promoted"]:
            candidate = read_json(home / "evaluations" / "last.json")["candidate"]
            lab_pipeline(home, "promote", candidate, "--author", "Ann", "--reason", "to have two")
        champions.append(read_json(home / "champions" / "champion.json")["id"])
    assert len(set(champions)) == 2
    copy = tmp_path / "elsewhere" / "copy"
    shutil.copytree(home, copy, symlinks=True)
    shutil.rmtree(home)

    assert json.loads(lab_pipeline(copy, "status", "--json"))["champion"]["folder"] == str(copy / "champions" / champions[1])
    assert champions[1] in lab_pipeline(copy, "lineage", "champion")
    assert "champion" in lab_pipeline(copy, "compare", "What is the capital of Thalveren?")
    assert lab_pipeline(copy, "chat", typed="Hello?\n")
    for folder in (copy / "champions" / champions[1], copy / "candidates" / champions[0] / "model"):
        AutoModelForCausalLM.from_pretrained(folder)
    lab_pipeline(copy, "rollback", "--author", "Ann", "--reason", "to see that it works")
    assert read_json(copy / "champions" / "champion.json")["id"] == champions[0]
    lab_pipeline(copy, "gc", "--delete")
    adapter = read_json(copy / "champions" / champions[1] / "adapters" / "skills" / "adapter_config.json")
    assert adapter["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"

    edit_yaml(taxonomy / SKILL / "qna.yaml", lambda value: value.update(task_description="Tell what happened first."))
    lab_pipeline(copy, "retune", "--summary", str(tmp_path / "summary.json"))
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {leaf for leaf, row in summary["leaves"].items() if row["status"] == "refreshed"} == {SKILL}
    assert summary["training_steps"] > 0 and summary["report"].startswith(str(copy))
    assert not home.exists()


def test_mistakes_are_answered_with_one_message(tmp_path):
    assert "no such folder" in lab_pipeline(tmp_path / "home", "retune", "--taxonomy", str(tmp_path / "none"), expect=1)
    assert "no home yet" in lab_pipeline(tmp_path / "home", "status", expect=1)
    empty = tmp_path / "empty"
    empty.mkdir()
    said = lab_pipeline(tmp_path / "home", "retune", "--taxonomy", str(empty), expect=1)
    assert "no qna.yaml" in said and "Traceback" not in said
    other = tmp_path / "other"
    other.mkdir()
    assert "belongs to the taxonomy" in lab_pipeline(tmp_path / "home", "retune", "--taxonomy", str(other), expect=1)
    (tmp_path / "home" / "settings.yaml").write_text("taxonomy: {path: .}\nseed: many\n")
    assert "seed" in lab_pipeline(tmp_path / "home", "status", expect=1)
