from collections.abc import Iterator
from typing import Any

import dagster as dg

from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import CURATED_SCHEMA, GENERATED_SCHEMA, JUDGED_SCHEMA
from lab_pipeline.core.storage import read_rows
from lab_pipeline.defs.column_lineage import COLUMN_LINEAGE
from lab_pipeline.defs.instructions.checks import FUNNELS_ADD_UP, JUDGES_SEPARATE, LEAVES_KEEP_ROWS, judge_check, leaf_checks
from lab_pipeline.defs.metadata import column_schema, counts, preview
from lab_pipeline.defs.partitions import LEAVES, leaf_of, partition_of
from lab_pipeline.defs.resources import Lab, errors_as_failures
from lab_pipeline.defs.taxonomy.assets import taxonomy_snapshot
from lab_pipeline.instructions.plan import LeafPlan, LeafState, plan_leaves
from lab_pipeline.instructions.refresh import LeafFailure, refresh_leaves
from lab_pipeline.models.base_model import ModelError
from lab_pipeline.registry.fitness import require_fitness
from lab_pipeline.reports.notifications import needs_attention, notify
from lab_pipeline.taxonomy.snapshot import check_recipients, current_snapshot
from lab_pipeline.taxonomy.withdrawals import withdrawals
from lab_pipeline.teacher.choose import load_teachers, teacher_identities

_COMMON: dict[str, Any] = {"group_name": "instructions", "partitions_def": LEAVES, "owners": ["team:lab"], "skippable": True}

SPECS = [
    dg.AssetSpec(
        "generated_instructions",
        deps=[taxonomy_snapshot],
        description="The teacher's candidates for one leaf, unfiltered, made from its seeds and its documents' passages. "
        "Held-out seeds are taken out before.",
        kinds={"llm", "parquet"},
        **_COMMON,
    ),
    dg.AssetSpec(
        "judged_instructions",
        deps=["generated_instructions"],
        description="The same rows with every judge's score and verdict.",
        kinds={"llm", "parquet"},
        **_COMMON,
    ),
    dg.AssetSpec(
        "curated_instructions",
        deps=["judged_instructions"],
        description="Rows kept by the leaf's own rules. The rejected ones stand beside them with rule and reason.",
        kinds={"python", "parquet"},
        **_COMMON,
    ),
]


class LeavesFailed(dg.Failure):
    """Leaves of a batch failed, and nothing else did."""


@dg.multi_asset(
    specs=SPECS,
    check_specs=[FUNNELS_ADD_UP, LEAVES_KEEP_ROWS, JUDGES_SEPARATE],
    can_subset=True,
    backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=200),
    pool="teacher",
)
def leaf_instructions(context: dg.AssetExecutionContext, lab: Lab) -> Iterator[dg.AssetCheckResult]:
    """Instructions of a batch of leaves: generated, judged, curated.

    One step for the whole batch: each leaf's materializations are reported as it finishes, what is stored under the right
    fingerprint is not made again, and the step fails at the end if any leaf failed, so exactly that leaf is red.
    """
    with errors_as_failures():
        home, settings = lab.home, lab.settings
        snapshot = current_snapshot(home)
        check_recipients(snapshot, settings)
        plans = plan_leaves(home, snapshot, settings, *teacher_identities(settings))
        asked = [leaf_of(partition) for partition in context.partition_keys]
        withdrawn = withdrawals(home)
        for leaf in withdrawn.keys() & set(asked):
            context.log.warning(f"{leaf}: {withdrawn[leaf]}; not refreshed")
        if not settings.mixing.generated:
            context.log.info("mixing.generated is false in settings.yaml: no leaf is asked of the teacher")
        leaves = [leaf for leaf in asked if leaf not in withdrawn] if settings.mixing.generated else []
        failed = {leaf: _why_not(snapshot.problems.get(leaf)) for leaf in leaves if leaf not in plans}
        for leaf, why in failed.items():
            context.log.error(f"{leaf}: {why}")
        wanted = {key.to_user_string() for key in context.selected_asset_keys}

        states: list[LeafState] = []
        failures: list[LeafFailure] = []

        def on_done(outcome: LeafState | LeafFailure) -> None:
            if isinstance(outcome, LeafFailure):
                failures.append(outcome)
                failed[outcome.leaf] = outcome.error
                context.log.error(f"{outcome.leaf}: failed (attempt {outcome.attempts}): {outcome.error}")
                return
            states.append(outcome)
            context.log.info(
                f"{outcome.leaf}: kept {outcome.funnel['kept']} of {outcome.funnel['generated']} rows "
                f"({outcome.teacher_calls} teacher calls)"
            )
            for event in _materializations(home, plans[outcome.leaf], outcome, wanted):
                context.log_event(event)

        if leaves:
            try:
                require_fitness(home, settings)  # before rows are paid for that no model can be trained on
            except ModelError as error:
                context.log.warning(f"not seen whether the base model can be trained: {error}")
        teacher, judge = load_teachers(home, settings)
        refresh_leaves(
            home,
            [plans[leaf] for leaf in leaves if leaf in plans],
            settings,
            teacher,
            judge,
            snapshot.taxonomy_commit,
            context.log.info,
            on_done,
        )
    if news := needs_attention(failures, settings.sensors.attempts):
        notify(settings, news, context.log.warning)
    checks = {key.name for key in context.selected_asset_check_keys}
    flows = {plans[state.leaf].flow.name: plans[state.leaf].flow for state in states}
    results = [*leaf_checks(states), judge_check(home, flows.values(), judge.identity)]
    yield from (result for result in results if result.check_name in checks)
    if failed:
        raise LeavesFailed(
            f"{len(failed)} of {len(leaves)} leaves failed; the others are done",
            metadata={leaf: why[:1000] for leaf, why in failed.items()},
            allow_retries=False,
        )


def _why_not(problems: list[str] | None) -> str:
    if problems is None:
        return "not in the taxonomy any more"
    return "quarantined: " + "; ".join(problems)


def _materializations(home: Home, plan: LeafPlan, state: LeafState, wanted: set[str]) -> Iterator[dg.AssetMaterialization]:
    tables = {"generated": GENERATED_SCHEMA, "judged": JUDGED_SCHEMA, "curated": CURATED_SCHEMA}
    for table, schema in tables.items():
        if f"{table}_instructions" not in wanted:
            continue
        rows = read_rows(plan.path(home, table))  # type: ignore[arg-type]
        metadata: dict[str, Any] = {
            "dagster/row_count": len(rows),
            "dagster/column_schema": column_schema(schema),
            "dagster/column_lineage": COLUMN_LINEAGE[f"{table}_instructions"],
            "teacher_calls": state.teacher_calls,
            "flow": plan.flow.name,
            "preview": preview(rows, ["question", "answer"]),
            "path": dg.MetadataValue.path(plan.path(home, table)),  # type: ignore[arg-type]
        }
        if table == "judged":
            scores = [score["score"] for row in rows for score in row["scores"] if score["score"] is not None]
            metadata["mean_score"] = sum(scores) / len(scores) if scores else 0.0
        if table == "curated":
            metadata |= {
                "kept_share": len(rows) / max(state.funnel["generated"], 1),
                "funnel": counts(state.funnel, "stage"),
                "rejected": dg.MetadataValue.path(plan.path(home, "rejected")),
            }
        yield dg.AssetMaterialization(
            f"{table}_instructions",
            partition=partition_of(state.leaf),
            metadata=metadata,
            tags={"dagster/data_version": getattr(state, table)},
        )
