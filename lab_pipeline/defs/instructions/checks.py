import dagster as dg

from lab_pipeline.defs.metadata import counts
from lab_pipeline.defs.resources import Lab
from lab_pipeline.flows.refresh import LeafState, leaf_state
from lab_pipeline.taxonomy.snapshot import current_snapshot

CURATED = dg.AssetKey("curated_instructions")


@dg.asset_check(asset=CURATED)
def funnels_add_up(lab: Lab) -> dg.AssetCheckResult:
    """Each leaf's generated rows are either kept, or rejected by a rule that is named: none is lost on the way."""
    wrong = {}
    for state in _states(lab):
        told = sum(number for stage, number in state.funnel.items() if stage != "generated")
        if told != state.funnel["generated"]:
            wrong[state.leaf] = state.funnel["generated"] - told
    return dg.AssetCheckResult(passed=not wrong, metadata={"rows_lost": counts(wrong, "leaf")})


@dg.asset_check(asset=CURATED)
def every_leaf_keeps_rows(lab: Lab) -> dg.AssetCheckResult:
    """The rules leave each refreshed leaf with something to train on. A warning: the other leaves go on without it."""
    kept = {state.leaf: state.funnel["kept"] for state in _states(lab)}
    return dg.AssetCheckResult(
        passed=all(kept.values()), severity=dg.AssetCheckSeverity.WARN, metadata={"rows_kept": counts(kept, "leaf")}
    )


def _states(lab: Lab) -> list[LeafState]:
    """The last good state of each leaf that has one."""
    states = (leaf_state(lab.home, row["leaf"]) for row in current_snapshot(lab.home).rows)
    return [state for state in states if state]
