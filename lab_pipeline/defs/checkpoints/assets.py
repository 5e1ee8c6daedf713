import os
from pathlib import Path
from typing import Any

import dagster as dg

from lab_pipeline.core.errors import LabError, NotMaterialized
from lab_pipeline.core.formats import number
from lab_pipeline.core.home import Home
from lab_pipeline.core.processes import python_module
from lab_pipeline.datasets.dataset import Phase, load_dataset
from lab_pipeline.datasets.general import load_general
from lab_pipeline.datasets.staleness import require_current_mixing
from lab_pipeline.defs.code_location import PREFIX, named
from lab_pipeline.defs.datasets.assets import knowledge_dataset, skills_dataset
from lab_pipeline.defs.kubernetes import TrainJobFailed, in_own_pod, lost_pod_retries, pod_tags
from lab_pipeline.defs.metadata import picture, short, texts
from lab_pipeline.defs.private_dagster import DagsterPipesExecutionError
from lab_pipeline.defs.resources import Lab, RetuneLock, errors_as_failures
from lab_pipeline.models.base_model import BaseModel, fetch_base
from lab_pipeline.pages.links import link
from lab_pipeline.registry.fitness import require_fitness
from lab_pipeline.training.checkpoint import Checkpoint, load_checkpoint, pass_through, prepare_checkpoint
from lab_pipeline.training.curve import curve_png
from lab_pipeline.training.failure import FAILED, INTERRUPTED, failure_file, training_failure
from lab_pipeline.training.validation import GROUPS

MALLOC = {
    # By default, glibc returns freed tensors to the system and requests them again at each step; keeping them is 7 % faster.
    "MALLOC_MMAP_THRESHOLD_": str(1 << 35),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 35),
    "MALLOC_TOP_PAD_": str(1 << 28),
}


@dg.asset(key_prefix=PREFIX, group_name="checkpoints", kinds={"huggingface", "pytorch"}, owners=["team:lab"])
def base_model(lab: Lab) -> dg.MaterializeResult:
    """Fetch the base model once, if it can be trained: a local folder of bf16 safetensors, downloaded or converted."""
    with errors_as_failures():
        require_fitness(lab.home, lab.settings)
        model = fetch_base(lab.home, lab.settings)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(model.digest),
        metadata={
            "identity": model.identity,
            "digest": model.digest,
            "path": dg.MetadataValue.path(model.folder),
            "page": dg.MetadataValue.url(link(lab.home, lab.settings, "models")),
        },
    )


@dg.asset(
    key_prefix=PREFIX,
    group_name="checkpoints",
    kinds={"pytorch", "bitsandbytes"},
    owners=["team:lab"],
    deps=[base_model, knowledge_dataset],
    pool=named("gpu"),
    op_tags=pod_tags("training"),
    retry_policy=lost_pod_retries("training"),
)
def knowledge_checkpoint(
    context: dg.AssetExecutionContext, lab: Lab, retune_lock: RetuneLock, trainer: dg.ResourceParam[dg.PipesClient]
) -> dg.MaterializeResult:
    """Train phase 1: a QLoRA adapter that learns the documents.

    Inputs that were trained before are not trained again. Without rows, or if the recipe's strategy is stacked, nothing is
    trained, and phase 2 starts from the base model.
    """
    return _train(context, lab, trainer, "knowledge")


@dg.asset(
    key_prefix=PREFIX,
    group_name="checkpoints",
    kinds={"pytorch", "bitsandbytes"},
    owners=["team:lab"],
    deps=[base_model, knowledge_checkpoint, skills_dataset],
    pool=named("gpu"),
    op_tags=pod_tags("training"),
    retry_policy=lost_pod_retries("training"),
)
def skills_checkpoint(
    context: dg.AssetExecutionContext, lab: Lab, retune_lock: RetuneLock, trainer: dg.ResourceParam[dg.PipesClient]
) -> dg.MaterializeResult:
    """Train phase 2: continue phase 1's adapter on the skills, with a replay of phase 1's rows.

    Inputs that were trained before are not trained again. Without rows, phase 1's adapter is passed on as it is.
    """
    return _train(context, lab, trainer, "skills")


def phase_1_checkpoint(home: Home, base: BaseModel, lab: Lab) -> Checkpoint:
    """Load the finished phase 1 checkpoint for the current base model, knowledge data set, recipe and seed.

    If it is not finished, its spec is written and the reason of an earlier failure removed (see `prepare_checkpoint`).

    Raises:
        NotMaterialized: no checkpoint was finished from these inputs yet, or there is no knowledge data set.
    """
    found, _ = prepare_checkpoint(home, base, load_dataset(home, "knowledge"), None, lab.recipe, lab.settings.seed)
    if found is None:
        raise NotMaterialized("no knowledge checkpoint for the current data; materialize knowledge_checkpoint first")
    return found


def _train(context: dg.AssetExecutionContext, lab: Lab, trainer: dg.PipesClient, phase: Phase) -> dg.MaterializeResult:
    with errors_as_failures():
        home, settings = lab.home, lab.settings
        base = fetch_base(home, settings)
        dataset = load_dataset(home, phase)
        before = phase_1_checkpoint(home, base, lab) if phase == "skills" else None
        recipe = lab.recipe
        require_current_mixing([dataset], load_general(settings.general).replay, recipe, settings.seed)
        finished, spec = prepare_checkpoint(home, base, dataset, before, recipe, settings.seed)
    steps = 0
    if finished is None and (dataset.rows == 0 or (phase == "knowledge" and recipe.stacked)):
        finished = pass_through(dataset, before, spec)
    elif finished is None:
        with errors_as_failures():
            run_trainer(context, trainer, spec, settings.tracking)
        finished = load_checkpoint(spec.parent)
        assert finished, "the trainer exited without an error, yet left no checkpoint"
        steps = finished.report.steps
    else:
        context.log.info(f"{finished.id}: already trained on the same inputs")
    return _described(lab, finished, steps)


def run_trainer(context: dg.AssetExecutionContext, trainer: dg.PipesClient, spec: Path, tracking: str | None = None) -> None:
    """Train as the file `spec` says, in processes that can be killed without the run's process: one, or one for each GPU.

    Args:
        tracking: a tool to report each step to, see `Settings.tracking`.

    Raises:
        LabError: the process ended with an error.
        DagsterPipesExecutionError: the process was told to end, and this is a pod that can be replaced.
    """
    tracked = {"LAB_TRACKING": tracking} if tracking else {}
    try:
        trainer.run(
            context=context,
            command=python_module("lab_pipeline.training", str(spec)),
            env={**{name: os.environ.get(name, value) for name, value in MALLOC.items()}, "PYTHONUNBUFFERED": "1", **tracked},
        )
    except TrainJobFailed as error:
        if failure_file(spec.parent).exists():
            raise training_failure(spec.parent, FAILED) from error
        raise LabError(f"{error}; run again to go on from the last saved step") from error
    except DagsterPipesExecutionError as error:
        exit_code = int(str(error).rpartition(" ")[2])  # Dagster gives it in the message only
        if exit_code == INTERRUPTED and in_own_pod():
            raise  # by the step's retry policy, a new pod goes on from there
        raise training_failure(spec.parent, exit_code) from error


def _described(lab: Lab, checkpoint: Checkpoint, steps: int) -> dg.MaterializeResult:
    report = checkpoint.report
    metadata: dict[str, Any] = {
        "checkpoint": checkpoint.id,
        "training_steps": steps,
        "tokens": report.tokens,
        "rows": report.rows,
        "validation_rows": report.validation_rows,
        "chosen_epoch": report.chosen["epoch"],
        "chosen_because": report.chosen["why"],
        "rows_cut": report.rows_cut,
        "rows_unlearnable": report.rows_unlearnable,
        "train_seconds": report.seconds,
        "path": dg.MetadataValue.path(checkpoint.folder),
        "page": dg.MetadataValue.url(link(lab.home, lab.settings, "models")),
        "meta": dg.MetadataValue.json(dict(checkpoint.meta)),
    }
    if report.curve:
        measured = {"tokens_per_second": report.tokens_per_second, "mfu": report.mfu, "peak_gpu_mib": report.peak_gpu_mib}
        validation = [{**each, **{group: number(each[group]) for group in GROUPS}} for each in report.validation]
        metadata |= {
            "final_loss": report.final_loss,
            "largest_gradient_norm": max(point.get("grad_norm", 0.0) for point in report.curve),
            "highest_learning_rate": max(point["learning_rate"] for point in report.curve),
            "processes": report.processes,
            "peak_rss_mib": report.peak_rss_mib,
            **{name: value for name, value in measured.items() if value is not None},
            "validation": texts(validation, ["epoch", "step", "leaves", "general"]),
            "loss_curve": picture(curve_png(report, checkpoint.id.split("-")[0]), "training and validation loss"),
        }
    trained = dg.DataVersion(checkpoint.meta["adapter_digest"] or "none")
    return dg.MaterializeResult(data_version=trained, metadata=short(metadata))
