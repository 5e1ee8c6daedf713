import dagster as dg

from lab_pipeline.core.verdict import Told
from lab_pipeline.defs.metadata import judge_agreement, short
from lab_pipeline.defs.promotion.assets import champion_model, evaluation_report
from lab_pipeline.defs.resources import Lab
from lab_pipeline.evaluation.evaluate import last_evaluation
from lab_pipeline.evaluation.report_text import may_decide
from lab_pipeline.registry.champion import current_champion, model_digest


@dg.asset_check(asset=evaluation_report)
def beats_champion(lab: Lab) -> dg.AssetCheckResult:
    """Check that the gate lets the candidate pass. A warning: a candidate that is no better is a normal result."""
    evaluation = last_evaluation(lab.home)
    assert evaluation
    verdict = evaluation["verdict"]
    return dg.AssetCheckResult(
        passed=verdict["promoted"],
        severity=dg.AssetCheckSeverity.WARN,
        description=Told(evaluation).sentence,
        metadata={"outcome": verdict["outcome"], "reference": evaluation["reference"], "reason": verdict["reason"]},
    )


@dg.asset_check(asset=evaluation_report)
def judge_separates_known_rows(lab: Lab) -> dg.AssetCheckResult:
    """Check that the judge of the models' answers separates known good answers from bad ones. If not, its scores are advice."""
    evaluation = last_evaluation(lab.home)
    assert evaluation
    judged = evaluation.get("judged")  # evaluations of earlier releases have none
    if judged is None:
        return dg.AssetCheckResult(passed=True, description="no judge endpoint is configured")
    if judged["unanswered"]:
        return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN, description=judged["unanswered"])
    known = judged["known_rows"]
    return dg.AssetCheckResult(
        passed=known["separates"],
        severity=dg.AssetCheckSeverity.WARN,
        description=may_decide(known),
        metadata=short(
            {
                "judge": judged["judge"],
                "area_under_curve": known["area"],
                "interval": "{:.3f} to {:.3f}".format(*known["interval"]),
                "rows": known["rows"],
                **judge_agreement(known["agreement"]),
            }
        ),
    )


@dg.asset_check(asset=champion_model)
def files_are_those_measured(lab: Lab) -> dg.AssetCheckResult:
    """Check that the champion's files still have the hash with which they were evaluated."""
    champion = current_champion(lab.home)
    assert champion
    digest = model_digest(champion.model)
    return dg.AssetCheckResult(passed=digest == champion.digest, metadata={"expected": champion.digest, "found": digest})
