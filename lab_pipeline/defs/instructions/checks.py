"""Check the rows of refreshed leaves.

The step that makes the rows reports these checks, because Dagster skips separate checks of a step that reports leaf by leaf.
"""

from collections.abc import Iterable, Iterator

import dagster as dg

from lab_pipeline.core.home import Home
from lab_pipeline.defs.code_location import asset_key
from lab_pipeline.defs.metadata import counts
from lab_pipeline.flows.flow import Flow
from lab_pipeline.instructions.judge_calibration import separation
from lab_pipeline.instructions.plan import LeafState
from lab_pipeline.teacher.judging import SEPARATES

CURATED = asset_key("curated_instructions")

FUNNELS_ADD_UP = dg.AssetCheckSpec(
    "funnels_add_up", asset=CURATED, description="Each generated row is either kept or rejected by a named rule. None is lost."
)
LEAVES_KEEP_ROWS = dg.AssetCheckSpec(
    "leaves_keep_rows",
    asset=CURATED,
    description="Curation keeps at least one row of each refreshed leaf. A warning: the other leaves go on without it.",
)
JUDGES_SEPARATE = dg.AssetCheckSpec(
    "judge_separates_known_rows",
    asset=asset_key("judged_instructions"),
    description="Each judge that may reject rows separates its flow's known good rows from the bad ones: area under the ROC "
    f"curve of at least {SEPARATES}. A warning: if it does not, its scores are advice and reject nothing.",
)


def leaf_checks(states: list[LeafState]) -> Iterator[dg.AssetCheckResult]:
    """Yield the results of two checks of the leaves in `states`: no row was lost between stages, and each leaf kept a row."""
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
    """Check that each judge of these flows separates known rows, if it may reject rows and was measured.

    Args:
        model: identity of the model that judges.
    """
    separations = {
        f"{flow.name}: {judge.name}": measured
        for flow in flows
        for judge in flow.file.judges
        if judge.gates and (measured := separation(home, flow, judge, model))
    }
    columns = [dg.TableColumn("judge", "string"), *(dg.TableColumn(name, "float") for name in ("area", "low", "high"))]
    records = [
        dg.TableRecord({"judge": judge, "area": each["area"], "low": each["interval"][0], "high": each["interval"][1]})
        for judge, each in sorted(separations.items())
    ]
    return dg.AssetCheckResult(
        asset_key=JUDGES_SEPARATE.asset_key,
        check_name=JUDGES_SEPARATE.name,
        passed=all(each["separates"] for each in separations.values()),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"area_under_the_curve": dg.MetadataValue.table(records, dg.TableSchema(columns))},
    )
