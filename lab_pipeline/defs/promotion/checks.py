import dagster as dg

from lab_pipeline.defs.promotion.assets import champion_model, evaluation_report
from lab_pipeline.defs.resources import Lab
from lab_pipeline.evaluation.evaluate import last_evaluation
from lab_pipeline.registry.champion import current_champion, model_digest


@dg.asset_check(asset=evaluation_report)
def beats_champion(lab: Lab) -> dg.AssetCheckResult:
    """The gate lets the candidate pass. A warning: a candidate that is no better is a normal night."""
    evaluation = last_evaluation(lab.home)
    assert evaluation
    verdict = evaluation["verdict"]
    return dg.AssetCheckResult(
        passed=verdict["promoted"],
        severity=dg.AssetCheckSeverity.WARN,
        description=verdict["reason"],
        metadata={"outcome": verdict["outcome"], "reference": evaluation["reference"]},
    )


@dg.asset_check(asset=champion_model)
def files_are_those_measured(lab: Lab) -> dg.AssetCheckResult:
    """The champion's files have the hash that the evaluation wrote down."""
    champion = current_champion(lab.home)
    assert champion
    found = model_digest(champion.model)
    return dg.AssetCheckResult(passed=found == champion.digest, metadata={"expected": champion.digest, "found": found})
