"""Checks of the leaves' rows. The step that makes them reports them: Dagster would skip checks behind a step that reports its
materializations leaf by leaf."""

from collections.abc import Iterable, Iterator

import dagster as dg

from lab_pipeline.core.home import Home
from lab_pipeline.defs.metadata import counts
from lab_pipeline.flows.flow import Flow
from lab_pipeline.instructions.judge_calibration import separation
from lab_pipeline.instructions.plan import LeafState
from lab_pipeline.teacher.judging import SEPARATES

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
JUDGES_SEPARATE = dg.AssetCheckSpec(
    "judge_separates_known_rows",
    asset="judged_instructions",
    description="Each judge that may reject rows tells its flow's known good rows from the bad ones: area under the curve of "
    f"at least {SEPARATES}. A warning: where it does not, its scores are advice, and reject nothing.",
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


def judge_check(home: Home, flows: Iterable[Flow], model: str) -> dg.AssetCheckResult:
    """The check on the judges of these flows, asked as the model of this identity."""
    found = {
        f"{flow.name}: {judge.name}": about
        for flow in flows
        for judge in flow.file.judges
        if judge.gates and (about := separation(home, flow, judge, model))
    }
    columns = [dg.TableColumn("judge", "string"), *(dg.TableColumn(name, "float") for name in ("area", "low", "high"))]
    records = [
        dg.TableRecord({"judge": judge, "area": about["area"], "low": about["interval"][0], "high": about["interval"][1]})
        for judge, about in sorted(found.items())
    ]
    return dg.AssetCheckResult(
        asset_key=JUDGES_SEPARATE.asset_key,
        check_name=JUDGES_SEPARATE.name,
        passed=all(about["separates"] for about in found.values()),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"area_under_the_curve": dg.MetadataValue.table(records, dg.TableSchema(columns))},
    )
