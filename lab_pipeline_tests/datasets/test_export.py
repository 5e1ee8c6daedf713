from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from huggingface_hub import DatasetCard, DatasetCardData
from typer.testing import CliRunner

from lab_pipeline.cli import app as cli
from lab_pipeline.cli import options
from lab_pipeline.config.teachers import PACKAGED
from lab_pipeline.core.errors import LabError, NotMaterialized
from lab_pipeline.core.home import Home
from lab_pipeline.datasets.dataset import Phase, load_dataset
from lab_pipeline.datasets.export import export_datasets, exported_row
from lab_pipeline.datasets.rows import seed_row
from lab_pipeline.models.base_model import fetch_model
from lab_pipeline.taxonomy.withdrawals import record_withdrawal
from lab_pipeline_tests.builders import FREEFORM, GROUNDED, KNOWLEDGE, settings_for
from lab_pipeline_tests.datasets.filled import FilledHome, copied, filled_home
from lab_pipeline_tests.datasets.mixing import mixed

MESSAGES = {
    "type": "object",
    "additionalProperties": False,
    "required": ["id", "messages", "metadata", "unmask"],
    "properties": {
        "id": {"type": "string", "minLength": 1},
        "metadata": {"type": "string", "contentMediaType": "application/json"},
        "unmask": {"type": "boolean"},
        "messages": {
            "type": "array",
            "minItems": 2,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["role", "content"],
                "properties": {
                    "role": {"enum": ["system", "user", "assistant"]},
                    "content": {"type": "string", "pattern": r"\S"},
                },
            },
        },
    },
}
"""A row of instructlab-sdg's messages files (docs/dataset_formats.md), which instructlab-training and training_hub read."""

PHASES: list[Phase] = ["knowledge", "skills"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> FilledHome:
    """A home with both data sets; one leaf's work is not for commercial use, another's licence is none that the hub knows."""
    filled = filled_home(tmp_path_factory.mktemp("filled"))
    (filled.taxonomy / KNOWLEDGE / "attribution.txt").write_text(
        "Title of work: Isles | A\nLicense of the work: CC BY-NC 4.0\n"
    )
    (filled.taxonomy / FREEFORM / "attribution.txt").write_text("Ours.\n")
    mixed(filled)
    return filled


@pytest.fixture(scope="module")
def exported(lab: FilledHome, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export that was moved after it was made."""
    made = tmp_path_factory.mktemp("made") / "export"
    export_datasets(lab.home, PHASES, made, lab.settings)
    return Path(shutil.move(made, tmp_path_factory.mktemp("moved") / "elsewhere"))


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def rows_of(exported: Path, phase: Phase) -> list[dict[str, Any]]:
    return [row for path in sorted(exported.glob(f"{phase}_*_msgs.jsonl")) for row in lines(path)]


@pytest.mark.parametrize("phase", PHASES)
def test_the_rows_are_the_data_set_s_in_the_documented_format(lab, exported, phase):
    rows = rows_of(exported, phase)
    check = jsonschema.Draft202012Validator(MESSAGES)
    assert not [error for row in rows for error in check.iter_errors(row)]
    stored = {row["id"]: row for row in load_dataset(lab.home, phase).read()}
    assert {row["id"] for row in rows} == stored.keys() and len(rows) == len(stored) > 10
    for row in rows:
        mine = stored[row["id"]]
        assert (row["messages"], row["unmask"]) == (mine["messages"], mine["unmask"])
        metadata = json.loads(row["metadata"])
        assert (metadata["leaf"], metadata["source"]) == (mine["leaf"], mine["source"])
        assert metadata.get("licences") == {KNOWLEDGE: ["CC-BY-NC-4.0"], FREEFORM: [], None: None}.get(
            mine["leaf"], ["Apache-2.0"]
        )


def test_a_row_that_breaks_the_format_would_be_seen():
    row = exported_row(seed_row(FREEFORM, {"asked": "Who?", "answer": "Anna."}))
    check = jsonschema.Draft202012Validator(MESSAGES)
    assert check.is_valid(row)
    for wrong in ({"metadata": {}}, {"unmask": "no"}, {"messages": row["messages"][:1]}, {"leaf": FREEFORM}, {"id": 3}):
        assert not check.is_valid({**row, **wrong})
    assert not check.is_valid({**row, "messages": [{"role": "user", "content": " "}, row["messages"][1]]})


def test_a_recipe_names_its_rows_by_a_path_from_its_own_folder(exported):
    for phase in PHASES:
        made = yaml.safe_load((exported / f"{phase}_recipe.yaml").read_text())
        assert made == {
            "datasets": [{"path": f"{phase}_train_msgs.jsonl", "sampling_size": 1.0}],
            "metadata": {"sys_prompt": ""},
        }
        assert (exported / made["datasets"][0]["path"]).is_file()


def test_the_questions_are_held_out_ones_with_the_right_answer_among_others_of_the_leaf(lab, exported):
    (path,) = (exported / "multiple_choice").glob("*.jsonl")
    held = {question["question"]: question["answer"] for question in lab.heldout()["leaves"][KNOWLEDGE]}
    questions = lines(path)
    assert {question["question"]: question["choices"][question["answer"]] for question in questions} == held
    assert all(len(set(question["choices"])) == 4 for question in questions)
    assert len({question["answer"] for question in questions}) > 1
    trained = {message["content"] for phase in PHASES for row in rows_of(exported, phase) for message in row["messages"]}
    assert not held.keys() & trained


def test_a_task_names_no_path_but_its_file_s_own_name(exported):
    (path,) = (exported / "multiple_choice").glob("*.yaml")
    head, _, rest = path.read_text().partition("\n")
    assert head == "custom_dataset: !function questions.load"
    assert (exported / "multiple_choice" / "questions.py").is_file()
    task = yaml.safe_load(rest)
    assert task["task"] == path.stem and task["dataset_kwargs"] == {"file": f"{path.stem}.jsonl"}
    assert str(exported.parent) not in rest


def test_the_card_is_one_that_the_hub_s_library_reads_and_flags_what_is_not_for_commercial_use(exported):
    card = DatasetCard.load(exported / "README.md")
    assert isinstance(card.data, DatasetCardData)
    data = card.data.to_dict()
    assert data["license"] == ["apache-2.0", "cc-by-nc-4.0", "other"]
    files = [each["path"] for config in data["configs"] for each in config["data_files"]]
    assert files and all((exported / file).is_file() for file in files)
    assert "**Rows from works under CC-BY-NC-4.0 are not for commercial use.**" in card.text
    assert f"No licence is stated for: {FREEFORM}." in card.text
    assert f"| {GROUNDED} | 0 |" in card.text and r"| Isles \| A | CC-BY-NC-4.0 |" in card.text


def test_one_phase_alone_and_no_folder_that_is_there_already(lab, exported, tmp_path, monkeypatch):
    monkeypatch.setattr(options, "prepare", lambda root, taxonomy: lab.home)
    lab.home.settings_file.write_text(yaml.safe_dump({"taxonomy": {"path": str(lab.taxonomy)}}))
    words = ["export-dataset", "--to", str(tmp_path / "skills"), "--phase", "skills", "--home", str(lab.home.root)]
    ran = CliRunner().invoke(cli.app, words)
    assert ran.exit_code == 0, ran.output
    made = sorted(path.name for path in (tmp_path / "skills").iterdir())
    assert made[0] == "README.md" and not [name for name in made if "knowledge" in name or "multiple" in name]
    assert (tmp_path / "skills" / "skills_train_msgs.jsonl").read_bytes() == (exported / "skills_train_msgs.jsonl").read_bytes()
    with pytest.raises(LabError, match="exists already"):
        export_datasets(lab.home, PHASES, tmp_path / "skills", lab.settings)


def test_without_data_sets_nothing_is_written(tmp_path):
    with pytest.raises(NotMaterialized, match="materialize knowledge_dataset first"):
        export_datasets(Home.open(tmp_path / "home"), PHASES, tmp_path / "out", settings_for(tmp_path))
    assert not (tmp_path / "out").exists()


def test_a_phase_without_rows_has_no_recipe_and_the_card_names_no_file_of_it(lab, tmp_path):
    skills_only = copied(lab, tmp_path)
    shutil.rmtree(skills_only.taxonomy / "knowledge")
    mixed(skills_only)
    made = export_datasets(skills_only.home, PHASES, tmp_path / "out", skills_only.settings)
    assert {"README.md", "skills_recipe.yaml", "skills_train_msgs.jsonl"} <= set(made)
    assert not [name for name in made if "knowledge" in name]
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    assert [config["config_name"] for config in card.data.to_dict()["configs"]] == ["skills"]


def test_data_sets_older_than_the_catalog_are_refused_in_one_message_and_written_once_they_are_mixed_anew(
    lab, tmp_path, monkeypatch, capsys
):
    changed = copied(lab, tmp_path)
    changed.home.settings_file.write_text(yaml.safe_dump({"taxonomy": {"path": str(changed.taxonomy)}}))
    record_withdrawal(changed.home, FREEFORM, "Anna", "It was wrong.")
    changed.catalog()
    monkeypatch.setattr(options, "prepare", lambda root, taxonomy: changed.home)
    monkeypatch.setattr("sys.argv", ["lab-pipeline", "export-dataset", "--to", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    said = capsys.readouterr().err
    assert said.startswith("error: knowledge_dataset and skills_dataset: mixed from another catalog")
    assert "lab-pipeline retune" in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()
    mixed(changed)
    export_datasets(changed.home, PHASES, tmp_path / "out", changed.settings)
    leaves = {json.loads(row["metadata"])["leaf"] for phase in PHASES for row in rows_of(tmp_path / "out", phase)}
    assert FREEFORM not in leaves and KNOWLEDGE in leaves


def test_rows_have_the_licences_that_the_card_has_though_these_alone_changed(lab, tmp_path):
    changed = copied(lab, tmp_path)
    (changed.taxonomy / FREEFORM / "attribution.txt").write_text("Title of work: Lines\nLicense of the work: MIT\n")
    changed.catalog()
    export_datasets(changed.home, PHASES, tmp_path / "out", changed.settings)
    metadata = [json.loads(row["metadata"]) for row in rows_of(tmp_path / "out", "skills")]
    stated = [row["licences"] for row in metadata if row["leaf"] == FREEFORM]
    assert stated and all(licences == ["MIT"] for licences in stated)
    assert "| Lines | MIT |" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.long
@pytest.mark.skipif(find_spec("lm_eval") is None, reason="needs lm-eval: pip install .[lm-eval]")
def test_lm_eval_loads_the_tasks_offline_and_scores_the_packaged_model(exported, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    (path,) = (exported / "multiple_choice").glob("*.jsonl")
    model = fetch_model(Home.open(tmp_path / "home"), PACKAGED)
    found = simple_evaluate(
        model="hf",
        model_args={"pretrained": str(model.folder), "dtype": "float32"},
        tasks=["lab_knowledge"],
        task_manager=TaskManager(include_path=str(exported / "multiple_choice"), include_defaults=False),
        device="cpu",
        batch_size=4,
        bootstrap_iters=0,
    )
    scores = found["results"][path.stem]
    assert 0 <= scores["acc,none"] <= 1 and 0 <= scores["acc_norm,none"] <= 1
    assert found["n-samples"][path.stem]["effective"] == len(lines(path))
