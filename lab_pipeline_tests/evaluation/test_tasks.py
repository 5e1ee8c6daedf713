from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from lab_pipeline.config.measures import MeasuresSettings
from lab_pipeline.config.teachers import PACKAGED
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.evaluation import tasks
from lab_pipeline.evaluation.measured_model import MeasuredModel
from lab_pipeline.evaluation.tasks import EXTRA, TaskScores, measure_tasks, surely_worse
from lab_pipeline.models.base_model import fetch_model

MODELS = {name: MeasuredModel(Path(name), name) for name in ("base", "champion", "candidate")}
RIGHT = {"base": [0.0, 0.0, 1.0, 0.0] * 25, "champion": [1.0, 1.0, 1.0, 0.0] * 25, "candidate": [1.0, 0.0, 1.0, 0.0] * 25}


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(model, task) of each run."""
    runs: list[tuple[str, str]] = []

    def run(folder: Path, task: str, settings: MeasuresSettings) -> TaskScores:
        runs.append((str(folder), task))
        return {"metric": "acc", "scores": RIGHT[str(folder)]}

    monkeypatch.setattr(tasks, "_run", run)
    monkeypatch.setattr(tasks, "version", lambda name: "0.4")
    return runs


def measured(tmp_path: Path, **settings: Any) -> list[Any]:
    said: list[str] = []
    return measure_tasks(Home.open(tmp_path / "home"), MODELS, "champion", MeasuresSettings(**settings), 0.95, said.append)


def test_models_are_compared_question_by_question(tmp_path, ran):
    (found,) = measured(tmp_path, tasks=["mmlu"])
    assert found["scores"] == {"base": 0.25, "champion": 0.75, "candidate": 0.5} and found["questions"] == 100
    assert found["difference"] == -0.25 and found["interval"] == pytest.approx([-0.3353, -0.1647], abs=1e-4)
    assert found["tolerance"] is None and surely_worse([found]) == []


@pytest.mark.parametrize(("tolerance", "refused"), [(0.0, True), (0.1, True), (0.2, False)])
def test_a_task_decides_where_the_settings_say_so(tmp_path, ran, tolerance, refused):
    found = measured(tmp_path, tasks=["mmlu"], refuse_below={"mmlu": tolerance})
    assert bool(surely_worse(found)) is refused
    assert not refused or "mmlu by 0.250" in surely_worse(found)[0]


def test_each_model_is_measured_once_by_each_task_until_its_files_change(tmp_path, ran):
    (tmp_path / "own").mkdir()
    file = tmp_path / "own" / "task.yaml"
    file.write_text("task: ours")
    own = {"folder": str(tmp_path / "own")}
    measured(tmp_path, tasks=["ours"], **own)
    measured(tmp_path, tasks=["ours", "mmlu"], **own)
    assert sorted(ran) == sorted((model, task) for model in MODELS for task in ("ours", "mmlu"))
    file.write_text("task: ours, too")
    measured(tmp_path, tasks=["ours"], **own)
    assert len(ran) == 9


def test_nothing_is_measured_that_nobody_named_and_a_missing_extra_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "version", lambda name: (_ for _ in ()).throw(tasks.PackageNotFoundError(name)))
    assert measured(tmp_path) == []
    with pytest.raises(LabError, match="pip install") as told:
        measured(tmp_path, tasks=["mmlu"])
    assert str(told.value) == EXTRA
    with pytest.raises(LabError, match="no folder /nowhere"):
        measured(tmp_path, tasks=["mmlu"], folder="/nowhere")


def test_what_decides_must_be_measured():
    with pytest.raises(ValueError, match="arc is not among the tasks"):
        MeasuresSettings(tasks=["mmlu"], refuse_below={"arc": 0.1})


@pytest.mark.long
@pytest.mark.skipif(find_spec("lm_eval") is None, reason="needs lm-eval: pip install .[lm-eval]")
def test_a_task_of_ones_own_measures_the_packaged_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "own"
    folder.mkdir()
    questions = [("The sky is", ["blue", "bread"]), ("Snow is", ["white", "loud"]), ("Fire is", ["hot", "seven"])]
    lines = [json.dumps({"question": question, "choices": choices}) + "\n" for question, choices in questions]
    (folder / "ours.jsonl").write_text("".join(lines))
    (folder / "ours.yaml").write_text(
        f"""
task: ours
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder / "ours.jsonl"}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: 0
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
    )
    home = Home.open(tmp_path / "home")
    base = fetch_model(home, PACKAGED)
    models = {"base": MeasuredModel(base.folder, base.digest), "candidate": MeasuredModel(base.folder, base.digest)}
    settings = MeasuresSettings(tasks=["ours"], folder=str(folder))
    (found,) = measure_tasks(home, models, "base", settings, 0.95, lambda text: None)
    assert (found["metric"], found["questions"], found["difference"]) == ("acc", 3, 0.0)
    assert found["scores"]["base"] == found["scores"]["candidate"] >= 2 / 3
