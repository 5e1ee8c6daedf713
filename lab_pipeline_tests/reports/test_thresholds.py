from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from lab_pipeline.cli import app as cli
from lab_pipeline.cli import options
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.rows import JUDGED_SCHEMA
from lab_pipeline.core.storage import read_rows, write_rows
from lab_pipeline.flows.flow import SHIPPED, load_flow
from lab_pipeline.instructions.plan import leaf_state
from lab_pipeline.reports import thresholds as reports
from lab_pipeline.reports.inspection import leaf_rows, review_rows
from lab_pipeline.reports.thresholds import known_thresholds, thresholds, what_if, with_threshold
from lab_pipeline_tests.builders import FREEFORM, KNOWLEDGE
from lab_pipeline_tests.datasets.filled import FilledHome, filled_home

WORDS = "while several happy farmers quietly painted wooden fences beside their orchard before breakfast and then walked home"


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> FilledHome:
    """A home whose knowledge leaf has answers that wander from their source, one further than the other."""
    filled = filled_home(tmp_path_factory.mktemp("filled"))
    folder, state = filled.home.leaf(KNOWLEDGE), leaf_state(filled.home, KNOWLEDGE)
    judged = read_rows(folder / f"judged-{state.judged}.parquet")
    rows = list({row["question"]: row for row in judged}.values())
    for number, row in enumerate(rows):
        row["answer"] = f"{row['support'].rstrip('.')} {' '.join(WORDS.split()[: number % 5])}."
    write_rows(folder / f"judged-{state.judged}.parquet", rows, JUDGED_SCHEMA)
    for table in ("curated", "rejected"):
        (folder / f"{table}-{state.curated}.parquet").unlink()
    filled.refresh(KNOWLEDGE)
    return filled


@pytest.fixture
def scripted(lab: FilledHome, monkeypatch: pytest.MonkeyPatch) -> FilledHome:
    """The lab, whose plans are those of the scripted teacher."""
    monkeypatch.setattr(reports, "teacher_identities", lambda settings: ("scripted", "scripted"))
    return lab


def curated_by(lab: FilledHome, folder: Path, change: dict[str, dict[str, Any]]) -> None:
    """Refresh the knowledge leaf by its flow with changed rules; the rows are those that are stored."""
    flow = folder / "simple_knowledge"
    shutil.copytree(SHIPPED / "simple_knowledge", flow)
    file = yaml.safe_load((flow / "flow.yaml").read_text())
    for rule in file["rules"]:
        rule.update(change.get(rule["rule"], {}))
    (flow / "flow.yaml").write_text(yaml.safe_dump(file))
    flows = lab.settings.flows.model_copy(update={"leaves": {KNOWLEDGE: str(flow)}})
    FilledHome(lab.home, lab.settings.model_copy(update={"flows": flows})).refresh(KNOWLEDGE)


def kept_ids(lab: FilledHome) -> set[str]:
    return {row["id"] for row in leaf_rows(lab.home, KNOWLEDGE).kept}


@pytest.mark.parametrize("is_current", [True, False], ids=["current", "behind"])
@pytest.mark.parametrize(
    ("threshold", "value", "change"),
    [
        ("off_topic", "0.97", {"off_topic": {"minimum": 0.97}}),
        ("off_topic", "0", {"off_topic": {"minimum": 0.0}}),
        ("length.answer", "1-2", {"length": {"answer": [1, 2]}}),
        ("unsupported_answer", "0.9", {"unsupported_answer": {"minimum": 0.9}}),
    ],
)
def test_what_is_told_is_what_a_refresh_by_such_a_flow_brings(lab, tmp_path, monkeypatch, threshold, value, change, is_current):
    if is_current:
        monkeypatch.setattr(reports, "teacher_identities", lambda settings: ("scripted", "scripted"))
    banned = next(iter(sorted(kept_ids(lab))))
    review_rows(lab.home, KNOWLEDGE, "ban", [banned], "Anna", "wrong")
    lab.refresh(KNOWLEDGE)
    before = kept_ids(lab)
    stored = sorted(path.name for path in lab.home.root.rglob("*"))
    told = what_if(lab.home, lab.settings, KNOWLEDGE, (threshold, value))
    assert sorted(path.name for path in lab.home.root.rglob("*")) == stored
    curated_by(lab, tmp_path / "flows", change)
    gained, lost = ({row["id"] for row in rows} for rows in (told.gained, told.lost))
    assert kept_ids(lab) == before - lost | gained
    assert (told.leaves, told.kept_now, told.kept_then) == (1, len(before), len(kept_ids(lab)))
    assert gained or lost


def test_a_stricter_rule_taken_back_would_bring_its_rows_back(scripted, tmp_path):
    before = kept_ids(scripted)
    curated_by(scripted, tmp_path / "flows", {"off_topic": {"minimum": 0.97}})
    after = kept_ids(scripted)
    assert before - after
    flows = scripted.settings.flows.model_copy(update={"leaves": {KNOWLEDGE: str(tmp_path / "flows" / "simple_knowledge")}})
    settings = scripted.settings.model_copy(update={"flows": flows})
    told = what_if(scripted.home, settings, "knowledge", ("off_topic", "0.6"))
    assert {row["id"] for row in told.gained} == before - after
    assert {row["id"] for row in told.lost} == after - before and told.present == {"0.97"}


def test_a_judge_is_asked_nothing_its_stored_scores_decide():
    flow = load_flow("knowledge")
    assert thresholds(flow) == {
        "judge faithful": "0.5",
        "judge relevant": "0.5",
        "judge self_contained": "0.5",
        "length.question": "3-100",
        "length.answer": "1-500",
        "off_topic": "0.4",
    }
    changed = with_threshold(flow, "judge relevant", "0.8")
    assert [judge.minimum for judge in changed.file.judges] == [0.5, 0.8, 0.5]
    assert changed.judging_digest == flow.judging_digest and changed.curation_digest != flow.curation_digest


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("off_topic", "2", "off_topic: Input should be less than or equal to 1, found '2'"),
        ("off_topic", "much", "off_topic: Input should be a valid number"),
        ("length.answer", "9", "length.answer: expected the least and the most words, such as 3-100, found '9'"),
        ("of_topic", "0.5", "of_topic: no such threshold; did you mean off_topic?"),
    ],
)
def test_a_threshold_or_value_that_cannot_be_is_refused_with_what_can(scripted, name, value, said):
    with pytest.raises(LabError) as refused:
        what_if(scripted.home, scripted.settings, KNOWLEDGE, (name, value))
    assert str(refused.value).startswith(said)


def test_leaves_beyond_the_most_rows_are_counted_as_left_out(scripted):
    whole = what_if(scripted.home, scripted.settings, "", ("off_topic", "0.6"))
    assert whole.leaves > 2 and whole.uncounted == 0
    some = what_if(scripted.home, scripted.settings, "", ("off_topic", "0.6"), most_rows=1)
    assert (some.leaves, some.uncounted) == (1, whole.leaves - 1)


def test_the_command_says_what_would_change_and_what_thresholds_there_are(scripted, monkeypatch):
    monkeypatch.setattr(options, "prepare", lambda root, taxonomy: scripted.home)
    scripted.home.settings_file.write_text(f"taxonomy: {{path: {scripted.taxonomy}}}\n")

    def run(*words: str) -> str:
        done = CliRunner().invoke(cli.app, ["rejects", *words, "--home", str(scripted.home.root)])
        if done.exception:
            raise done.exception
        return done.output

    with pytest.raises(LabError, match=r"expected RULE=VALUE; now it is: .*'off_topic=0.6'"):
        run(KNOWLEDGE, "--if", "off_topic")
    assert known_thresholds(scripted.home, scripted.settings, FREEFORM).keys() == {
        "length.answer",
        "length.question",
        "off_topic",
    }
    shown = run(KNOWLEDGE, "--if", "off_topic=0.97", "--limit", "1")
    told = json.loads(run(KNOWLEDGE, "--if", "off_topic=0.97", "--limit", "1", "--json"))
    assert shown.startswith("off_topic: 0.97 in place of 0.6\n") and "Nothing was changed." in shown
    assert f"{told['kept_then']} of {told['rows']} rows of 1 leaf would be kept; now {told['kept_now']} are." in shown
    assert f"row           {told['rejected_examples'][0]['id']}" in shown and len(told["rejected_examples"]) == 1
    state = leaf_state(scripted.home, KNOWLEDGE)
    assert len(read_rows(scripted.home.leaf(KNOWLEDGE) / f"judged-{state.judged}.parquet")) == told["rows"]
