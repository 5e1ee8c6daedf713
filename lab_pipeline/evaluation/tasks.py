"""Measure models by named tasks of lm-eval, such as MMLU or a team's own, beside the exam.

Each question of a task gives a score for each model, so the models are compared question by question. The tasks advise; those
named in `measures.refuse_below` refuse a candidate that is surely worse by more than is tolerated there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import NormalDist, fmean, stdev
from typing import Any, TypedDict

from lab_pipeline.config.measures import MeasuresSettings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.evaluation import TaskMeasure
from lab_pipeline.core.home import Home
from lab_pipeline.core.progress import Say
from lab_pipeline.core.storage import file_digest
from lab_pipeline.evaluation.measured_model import MeasuredModel, measure_once
from lab_pipeline.models.loader import compute_dtype, this_device

EXTRA = "measures.tasks needs lm-eval: pip install 'lab-pipeline[lm-eval]'"


class TaskScores(TypedDict):
    """One model's scores in a task, by question in the order of their ids, and the metric's name."""

    metric: str
    scores: list[float]


def measure_tasks(
    home: Home,
    models: Mapping[str, MeasuredModel],
    reference: str,
    settings: MeasuresSettings,
    confidence: float,
    say: Say,
) -> list[TaskMeasure]:
    """Return how the models do in each task that the settings name; scores are stored by model and task.

    Raises:
        LabError: as `require_tasks`, or lm-eval cannot run a task.
    """
    if not settings.tasks:
        return []
    how = [require_tasks(settings), _files(settings.folder), settings.questions]

    def measured(role: str, model: MeasuredModel) -> list[TaskScores]:
        def run(tasks: list[str]) -> list[TaskScores]:
            say(f"measuring {role} ({model.digest}) by {', '.join(tasks)}")
            return [_run(model.folder, task, settings) for task in tasks]

        return measure_once(home.evaluations / "tasks" / f"{model.digest}.json", how, settings.tasks, run)

    found = {role: measured(role, model) for role, model in models.items()}
    return [
        _compare(task, {role: scores[number] for role, scores in found.items()}, reference, settings, confidence)
        for number, task in enumerate(settings.tasks)
    ]


def surely_worse(measures: Sequence[TaskMeasure]) -> list[str]:
    """Name the tasks that decide in which the candidate is surely worse by more than is tolerated, with by how much."""
    return [
        f"{each['task']} by {-each['difference']:.3f}, more than the {each['tolerance']:.3f} tolerated"
        for each in measures
        if each["tolerance"] is not None and each["interval"] and each["interval"][1] < -each["tolerance"]
    ]


def _compare(
    task: str, found: Mapping[str, TaskScores], reference: str, settings: MeasuresSettings, confidence: float
) -> TaskMeasure:
    differences = [mine - other for mine, other in zip(found["candidate"]["scores"], found[reference]["scores"], strict=True)]
    difference, interval = fmean(differences), None
    if len(differences) > 1:
        half = NormalDist().inv_cdf((1 + confidence) / 2) * stdev(differences) / len(differences) ** 0.5
        interval = [difference - half, difference + half]
    return {
        "task": task,
        "metric": found["candidate"]["metric"],
        "questions": len(differences),
        "scores": {role: fmean(each["scores"]) for role, each in found.items()},
        "difference": difference,
        "interval": interval,
        "tolerance": settings.refuse_below.get(task),
    }


def require_tasks(settings: MeasuresSettings) -> str:
    """Check that the tasks can be looked for, and return lm-eval's version; 'none' if the settings name no task.

    Raises:
        LabError: lm-eval is not installed, or the folder of tasks is missing.
    """
    if not settings.tasks:
        return "none"
    if settings.folder and not Path(settings.folder).is_dir():
        raise LabError(f"measures.folder: no folder {settings.folder}")
    try:
        return f"lm-eval {version('lm-eval')}"
    except PackageNotFoundError:
        raise LabError(EXTRA) from None


def _files(folder: str | None) -> list[tuple[str, str]]:
    """Return what a folder of tasks holds, so that a changed task or data set is measured anew."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file()) if folder else []
    return [(str(path.relative_to(str(folder))), file_digest(path)) for path in files]


def _run(model_folder: Path, task: str, settings: MeasuresSettings) -> TaskScores:
    """Run one task or group; of several metrics, the first one that the task names counts."""
    import datasets
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    datasets.config.HF_DATASETS_OFFLINE = datasets.config.HF_HUB_OFFLINE = settings.offline
    try:
        found: Any = simple_evaluate(
            model="hf",
            model_args={"pretrained": str(model_folder), "dtype": str(compute_dtype(this_device())).removeprefix("torch.")},
            tasks=[task],
            task_manager=TaskManager(include_path=settings.folder),
            limit=settings.questions,
            device=this_device(),
            bootstrap_iters=0,
            log_samples=True,
        )
    except Exception as error:  # tasks are programs of others, which fail in any way
        reason = f"{type(error).__name__}: {error}"
        raise LabError(f"measures.tasks: lm-eval cannot run {task}: {reason}") from error
    samples = [each for _, asked in sorted(found["samples"].items()) for each in sorted(asked, key=lambda one: one["doc_id"])]
    if not samples:
        raise LabError(f"measures.tasks: {task} has no questions")
    metric = samples[0]["metrics"][0]
    return {"metric": metric, "scores": [float(each[metric]) for each in samples]}
