"""Checks of the leaves' rows. The step that makes them reports them: Dagster would skip checks behind a step that reports its
materializations leaf by leaf."""

from collections.abc import Iterator

import dagster as dg

from lab_pipeline.defs.metadata import counts
from lab_pipeline.flows.refresh import LeafState

CURATED = dg.AssetKey("curated_instructions")

FUNNELS_ADD_UP = dg.AssetCheckSpec(
    "funnels_add_up",
    asset=CURATED,
    description="Each leaf's generated rows are either kept, or rejected by a rule that is named: none is lost on the way.",
)
LEAVES_KEEP_ROWS = dg.AssetCheckSpec(
    "leaves_keep_rows",
    asset=CURATED,
    description="The rules leave each refreshed leaf with something to train on. A warning: the others go on without it.",
)


def leaf_checks(states: list[LeafState]) -> Iterator[dg.AssetCheckResult]:
    """The checks on the leaves that a run refreshed."""
    lost = {
        state.leaf: missing
        for state in states
        if (missing := 2 * state.funnel["generated"] - sum(state.funnel.values()))  # all other stages add up to it
    }
    kept = {state.leaf: state.funnel["kept"] for state in states}
    yield dg.AssetCheckResult(
        asset_key=CURATED, check_name=FUNNELS_ADD_UP.name, passed=not lost, metadata={"rows_lost": counts(lost, "leaf")}
    )
    yield dg.AssetCheckResult(
        asset_key=CURATED,
        check_name=LEAVES_KEEP_ROWS.name,
        passed=all(kept.values()),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"rows_kept": counts(kept, "leaf")},
    )
