from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg

from lab_pipeline.core.errors import NotMaterialized
from lab_pipeline.datasets.catalog import current_catalog
from lab_pipeline.datasets.dataset import load_dataset
from lab_pipeline.datasets.general import load_general
from lab_pipeline.datasets.heldout_questions import load_heldout
from lab_pipeline.datasets.staleness import require_current_mixing, require_current_sources
from lab_pipeline.defs.checkpoints.assets import base_model, phase_1_checkpoint, skills_checkpoint
from lab_pipeline.defs.datasets.assets import heldout_questions
from lab_pipeline.defs.kubernetes import gpu_op_tags
from lab_pipeline.defs.metadata import judged_answers, preview
from lab_pipeline.defs.resources import Lab, RetuneLock, errors_as_failures
from lab_pipeline.evaluation.evaluate import evaluate, last_evaluation, retune_inputs
from lab_pipeline.models.base_model import fetch_model, model_identity
from lab_pipeline.registry.candidate import merge_candidate
from lab_pipeline.registry.champion import PromotionRefused, current_champion, promote
from lab_pipeline.reports.notifications import notify, promoted, rejected
from lab_pipeline.taxonomy.snapshot import load_snapshot
from lab_pipeline.training.checkpoint import prepare_checkpoint


@dg.asset(
    group_name="promotion",
    kinds={"pytorch", "html"},
    owners=["team:lab"],
    deps=[skills_checkpoint, heldout_questions, base_model],
    pool="gpu",
    op_tags=gpu_op_tags(),
    # Nights without a change evaluate nothing, so only a report older than any usual quiet spell is worth a look.
    freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(days=30), warn_window=timedelta(days=7)),
)
def evaluation_report(context: dg.AssetExecutionContext, lab: Lab, retune_lock: RetuneLock) -> dg.MaterializeResult:
    """The candidate against base model and champion on held-out questions, with the gate's verdict in the data."""
    with errors_as_failures():
        home, settings = lab.home, lab.settings
        base = fetch_model(home, settings.base_model)
        recipe = lab.recipe
        general = load_general(settings.general)
        knowledge, skills = load_dataset(home, "knowledge"), load_dataset(home, "skills")
        before = phase_1_checkpoint(home, base, lab)
        checkpoint, _ = prepare_checkpoint(home, base, skills, before, recipe, settings.seed)
        if checkpoint is None:
            raise NotMaterialized("no skills checkpoint for the current data; materialize skills_checkpoint first")
        catalog, heldout = current_catalog(home), load_heldout(home)
        if not catalog.in_use:
            raise NotMaterialized("no leaf has rows, so there is nothing to evaluate; materialize the leaves first")
        require_current_sources([knowledge, skills], catalog, heldout, settings.mixing)
        require_current_mixing([knowledge, skills], general.replay, recipe, settings.seed)
        inputs = retune_inputs(catalog, heldout["digest"], general, model_identity(settings.base_model), recipe, settings)
        last = last_evaluation(home)
        evaluation = evaluate(
            home,
            settings,
            inputs,
            base,
            merge_candidate(home, base, checkpoint),
            catalog,
            load_snapshot(home, catalog.snapshot),
            heldout,
            {
                "datasets": {"knowledge": knowledge.digest, "skills": skills.digest},
                "checkpoints": {"knowledge": before.id, "skills": checkpoint.id},
                "chosen": {"knowledge": before.report["chosen"], "skills": checkpoint.report["chosen"]},
                "recipe": recipe.model_dump(mode="json"),
                "seed": settings.seed,
            },
            context.log.info,
        )
    is_new = last is None or last["evaluated_at"] != evaluation["evaluated_at"]
    if is_new and not evaluation["verdict"]["promoted"]:
        notify(settings, rejected(evaluation), context.log.warning)
    context.log.info(f"{evaluation['verdict']['outcome']}: {evaluation['verdict']['reason']}")
    measured = {
        f"{group}_{model}": evaluation[group][model]
        for group in ("heldout", "general")
        for model in ("base", "champion", "candidate", "difference")
        if evaluation[group][model] is not None
    }
    with open(evaluation["report"], encoding="utf-8") as file:
        report = file.read()
    return dg.MaterializeResult(
        data_version=dg.DataVersion(evaluation["inputs"]),
        metadata={
            **measured,
            **judged_answers(evaluation.get("judged")),  # evaluations of earlier releases have none
            "promoted": evaluation["verdict"]["promoted"],
            "outcome": evaluation["verdict"]["outcome"],
            "report": dg.MetadataValue.md(report),
            "path": dg.MetadataValue.path(evaluation["report"]),
            "page": dg.MetadataValue.path(Path(evaluation["report"]).with_suffix(".html")),
        },
    )


@dg.asset(
    group_name="promotion",
    kinds={"huggingface"},
    owners=["team:lab"],
    deps=[evaluation_report],
    output_required=False,
)
def champion_model(context: dg.AssetExecutionContext, lab: Lab, retune_lock: RetuneLock) -> Iterator[dg.MaterializeResult]:
    """The promoted model in one folder: merged bf16 safetensors, tokenizer, model card, lineage and adapters.

    It reads the verdict in the last evaluation and refuses by itself, however it is started; a refusal is no failure.
    """
    with errors_as_failures():
        home, settings = lab.home, lab.settings
        evaluation = last_evaluation(home)
        if evaluation is None:
            raise NotMaterialized("no evaluation yet; materialize evaluation_report first")
        before = current_champion(home)
        try:
            champion = promote(home, evaluation)
        except PromotionRefused as refusal:
            kept = before.id if before else "none yet"
            context.log.warning(f"not promoted: {refusal}. The champion stays: {kept}")
            return
    if before and before.id == champion.id:
        context.log.info(f"{champion.id} is the champion already")
    else:
        notify(settings, promoted(champion, evaluation), context.log.warning)
    yield dg.MaterializeResult(
        data_version=dg.DataVersion(champion.digest),
        metadata={
            "champion": champion.id,
            "before": before.id if before else "none",
            "digest": champion.digest,
            "heldout": evaluation["heldout"]["candidate"] or 0.0,
            "leaves": preview(evaluation["leaves"], ["leaf", "kind", "rows", "contributor"]),
            "path": dg.MetadataValue.path(champion.model),
            "model_card": dg.MetadataValue.md((champion.model / "README.md").read_text(encoding="utf-8")),
        },
    )
