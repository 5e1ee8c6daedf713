from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from lab_pipeline.core.errors import NotMaterialized
from lab_pipeline.core.evaluation import Evaluation, Provenance
from lab_pipeline.core.formats import cell
from lab_pipeline.core.progress import Say
from lab_pipeline.core.verdict import Told, right_answers
from lab_pipeline.datasets.catalog import current_catalog
from lab_pipeline.datasets.dataset import load_dataset
from lab_pipeline.datasets.general import load_general
from lab_pipeline.datasets.heldout_questions import load_heldout
from lab_pipeline.datasets.staleness import require_current_mixing, require_current_sources
from lab_pipeline.defs.checkpoints.assets import base_model, phase_1_checkpoint, skills_checkpoint
from lab_pipeline.defs.code_location import PREFIX, named
from lab_pipeline.defs.datasets.assets import heldout_questions
from lab_pipeline.defs.kubernetes import lost_pod_retries, pod_tags
from lab_pipeline.defs.metadata import acceptance_results, judged_answers, preview, short
from lab_pipeline.defs.resources import Lab, RetuneLock, errors_as_failures
from lab_pipeline.evaluation.evaluate import RetuneData, evaluate, last_evaluation, retune_inputs
from lab_pipeline.models.base_model import base_identity, fetch_base
from lab_pipeline.pages.links import link
from lab_pipeline.registry.candidate import merge_candidate
from lab_pipeline.registry.champion import PromotionRefused, current_champion, promote
from lab_pipeline.registry.publish import publish
from lab_pipeline.reports.notifications import notify, rejected
from lab_pipeline.taxonomy.snapshot import load_snapshot
from lab_pipeline.training.checkpoint import prepare_checkpoint


@dg.asset(
    key_prefix=PREFIX,
    group_name="promotion",
    kinds={"pytorch", "html"},
    owners=["team:lab"],
    deps=[skills_checkpoint, heldout_questions, base_model],
    pool=named("gpu"),
    op_tags=pod_tags("evaluation"),
    retry_policy=lost_pod_retries("evaluation"),
    # A night without a change evaluates nothing, so only a report that is a week old or older is worth a look.
    freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(days=30), warn_window=timedelta(days=7)),
)
def evaluation_report(context: dg.AssetExecutionContext, lab: Lab, retune_lock: RetuneLock) -> dg.MaterializeResult:
    """Compare the candidate with the base model and the champion on the test questions; store scores, report and verdict."""
    with errors_as_failures():
        last = last_evaluation(lab.home)
        evaluation = _evaluated_candidate(lab, context.log.info)
    verdict, report = evaluation["verdict"], Path(evaluation["report"])
    is_new = last is None or last["evaluated_at"] != evaluation["evaluated_at"]
    if is_new and not verdict["promoted"]:
        notify(lab.settings, rejected(evaluation), context.log.warning)
    told = Told(evaluation)
    context.log.info(told.sentence)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(evaluation["inputs"]),
        metadata={
            "verdict": told.sentence,
            "promoted": verdict["promoted"],
            "why": dg.MetadataValue.md("\n".join(f"- {cell(each)}" for each in told.reasons)),
            "what_to_do_next": told.next,
            **{f"right_{model}": right.right for model, right in right_answers(evaluation).items()},
            **_losses("heldout", evaluation["heldout"]),
            **(_losses("exam", evaluation["exam"]) if "exam" in evaluation else {}),
            **_losses("general", evaluation["general"]),
            **short(judged_answers(evaluation.get("judged"))),  # evaluations of earlier releases have none
            **short(
                acceptance_results(
                    evaluation.get("acceptance", []), "base" if evaluation["reference"] == "base" else "champion"
                )
            ),
            "leaves_still_known": sum(bool(each["still_known"]) for each in evaluation.get("unlearned", [])),
            "outcome": verdict["outcome"],
            "report": dg.MetadataValue.md(report.read_text(encoding="utf-8")),
            "path": dg.MetadataValue.path(report),
            "page": dg.MetadataValue.url(link(lab.home, lab.settings, "report", id=evaluation["candidate"])),
        },
    )


def _evaluated_candidate(lab: Lab, say: Say) -> Evaluation:
    """Merge the skills checkpoint of the current data into a candidate, and evaluate it.

    Raises:
        NotMaterialized: no leaf is in use, or a catalog, data set, test or checkpoint is missing or out of date.
    """
    home, settings, recipe = lab.home, lab.settings, lab.recipe
    base = fetch_base(home, settings)
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
    inputs = retune_inputs(catalog, heldout["digest"], general, base_identity(settings), recipe, settings)
    candidate = merge_candidate(home, base, checkpoint, say)
    data = RetuneData(catalog, load_snapshot(home, catalog.snapshot), heldout)
    provenance: Provenance = {
        "datasets": {"knowledge": knowledge.digest, "skills": skills.digest},
        "checkpoints": {"knowledge": before.id, "skills": checkpoint.id},
        "chosen": {"knowledge": before.report.chosen, "skills": checkpoint.report.chosen},
        "recipe": recipe.model_dump(mode="json"),
        "seed": settings.seed,
    }
    return evaluate(home, settings, inputs, base, candidate, data, provenance, say)


def _losses(questions: str, measured: Mapping[str, Any]) -> dict[str, float]:
    models = ("base", "champion", "candidate", "difference")
    return short({f"{questions}_{model}": measured[model] for model in models if measured[model] is not None})


@dg.asset(
    key_prefix=PREFIX,
    group_name="promotion",
    kinds={"huggingface"},
    owners=["team:lab"],
    deps=[evaluation_report],
    output_required=False,
)
def champion_model(context: dg.AssetExecutionContext, lab: Lab, retune_lock: RetuneLock) -> Iterator[dg.MaterializeResult]:
    """Promote the last evaluated candidate if the gate let it pass.

    The champion is one folder with merged bf16 safetensors, tokenizer, model card, lineage and adapters. If the promotion is
    refused, however this asset was started, it is no failure: the champion stays.
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
            stays: dict[str, Any] = {
                "promoted": False,
                "why": str(refusal),
                "candidate": evaluation["candidate"],
                "champion": kept,
            }
            context.log_event(dg.AssetObservation(context.asset_key, description=f"not promoted: {refusal}", metadata=stays))
            return
    if before and before.id == champion.id:
        context.log.info(f"{champion.id} is the champion already")
    else:
        notify(settings, f"New champion {champion.id}: {Told(evaluation).sentence}", context.log.warning)
    with errors_as_failures():
        published = publish(settings, champion)
    yield dg.MaterializeResult(
        data_version=dg.DataVersion(champion.digest),
        metadata={
            "verdict": Told(evaluation).sentence,
            "champion": champion.id,
            **({"published": published} if published else {}),
            "why": evaluation["verdict"]["reason"],
            **short({"heldout": evaluation["heldout"]["candidate"] or 0.0}),
            "before": before.id if before else "none",
            "digest": champion.digest,
            "leaves": preview(evaluation["leaves"], ["leaf", "kind", "rows", "contributor"]),
            "path": dg.MetadataValue.path(champion.model),
            "page": dg.MetadataValue.url(link(home, settings, "card", id=champion.id)),
            "model_card": dg.MetadataValue.md((champion.model / "README.md").read_text(encoding="utf-8")),
        },
    )
