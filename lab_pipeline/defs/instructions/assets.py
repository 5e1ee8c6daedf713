from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import dagster as dg
import pyarrow as pa

from lab_pipeline.config.settings import Settings
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import CURATED_SCHEMA, GENERATED_SCHEMA, JUDGED_SCHEMA
from lab_pipeline.core.storage import read_rows
from lab_pipeline.defs.code_location import asset_key, named
from lab_pipeline.defs.column_lineage import COLUMN_LINEAGE
from lab_pipeline.defs.instructions.checks import FUNNELS_ADD_UP, JUDGES_SEPARATE, LEAVES_KEEP_ROWS, judge_check, leaf_checks
from lab_pipeline.defs.kubernetes import lost_pod_retries, pod_tags
from lab_pipeline.defs.metadata import column_schema, counts, preview, short, texts
from lab_pipeline.defs.partitions import LEAVES, leaf_of, partition_of
from lab_pipeline.defs.resources import Lab, errors_as_failures
from lab_pipeline.defs.taxonomy.assets import taxonomy_snapshot
from lab_pipeline.instructions.plan import LeafFailure, LeafPlan, LeafState, Table, plan_leaves
from lab_pipeline.instructions.refresh import Refreshed, refresh_leaves
from lab_pipeline.models.base_model import ModelError
from lab_pipeline.pages.links import link
from lab_pipeline.registry.fitness import require_fitness
from lab_pipeline.reports.notifications import needs_attention, notify
from lab_pipeline.taxonomy.snapshot import check_recipients, current_snapshot
from lab_pipeline.taxonomy.withdrawals import withdrawals
from lab_pipeline.teacher.choose import load_teachers, teacher_identities
from lab_pipeline.teacher.spending import numbers_of, total

SPECS = [
    spec.replace_attributes(group_name="instructions", partitions_def=LEAVES, owners=["team:lab"], skippable=True)
    for spec in (
        dg.AssetSpec(
            asset_key("generated_instructions"),
            deps=[taxonomy_snapshot],
            description="The teacher's candidate rows for one leaf, unfiltered, written from its seeds and its documents' "
            "passages. No prompt shows a held-out seed.",
            kinds={"llm", "parquet"},
        ),
        dg.AssetSpec(
            asset_key("judged_instructions"),
            deps=[asset_key("generated_instructions")],
            description="The same rows with each judge's score and verdict.",
            kinds={"llm", "parquet"},
        ),
        dg.AssetSpec(
            asset_key("curated_instructions"),
            deps=[asset_key("judged_instructions")],
            description="The rows that the curation rules kept. The rejected ones are stored beside them with rule and reason.",
            kinds={"python", "parquet"},
        ),
    )
]


class LeavesFailed(dg.Failure):
    """Failure of a step in which some leaves failed, and nothing else."""


@dg.multi_asset(
    specs=SPECS,
    check_specs=[FUNNELS_ADD_UP, LEAVES_KEEP_ROWS, JUDGES_SEPARATE],
    can_subset=True,
    backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=200),
    pool=named("teacher"),
    op_tags=pod_tags("generation"),
    retry_policy=lost_pod_retries("generation"),
)
def leaf_instructions(context: dg.AssetExecutionContext, lab: Lab) -> Iterator[dg.AssetCheckResult]:
    """Generate, judge and curate the rows of a batch of leaves.

    One step does the whole batch. It reports each leaf's materializations as the leaf finishes, and reuses stored rows whose
    fingerprint has not changed. It fails at the end if any leaf failed, so that exactly the failed leaves are red. Withdrawn
    leaves are skipped.
    """
    with errors_as_failures():
        home, settings = lab.home, lab.settings
        snapshot = current_snapshot(home)
        check_recipients(snapshot, settings)
        plans = plan_leaves(home, snapshot, settings, *teacher_identities(settings))
        leaves = _requested_leaves(context, lab)
        quarantined = {leaf: "quarantined: " + "; ".join(problems) for leaf, problems in snapshot.problems.items()}
        failed = {leaf: quarantined.get(leaf, "not in the taxonomy any more") for leaf in leaves if leaf not in plans}
        for leaf, why in failed.items():
            context.log.error(f"{leaf}: {why}")
        if leaves:
            _check_base_model(context, lab)
        batch = _Batch(context, home, settings, plans)
        teacher, judge = load_teachers(home, settings)
        wanted, commit = [plans[leaf] for leaf in leaves if leaf in plans], snapshot.taxonomy_commit
        done = refresh_leaves(home, wanted, settings, teacher, judge, commit, context.log.info, batch.report)
    if done.spent.calls:
        context.log_event(dg.AssetObservation(asset_key("generated_instructions"), metadata=_of_run(done)))
    if news := needs_attention(batch.failures, settings.sensors.attempts):
        notify(settings, news, context.log.warning)
    checks = {key.name for key in context.selected_asset_check_keys}
    flows = {plans[state.leaf].flow.name: plans[state.leaf].flow for state in batch.states}
    results = [*leaf_checks(batch.states), judge_check(home, flows.values(), judge.identity)]
    yield from (result for result in results if result.check_name in checks)
    failed |= {failure.leaf: failure.error for failure in batch.failures}
    if failed:
        raise LeavesFailed(
            f"{len(failed)} of {len(leaves)} leaves failed; the others are done"
            if len(failed) < len(leaves)
            else f"All {len(leaves)} leaves failed",
            metadata={leaf: why[:1000] for leaf, why in failed.items()},
            allow_retries=False,
        )


@dataclass
class _Batch:
    """Collects the outcomes of a run's leaves; `report` takes the next one and tells Dagster about it at once."""

    context: dg.AssetExecutionContext
    home: Home
    settings: Settings
    plans: Mapping[str, LeafPlan]
    states: list[LeafState] = field(default_factory=list)
    failures: list[LeafFailure] = field(default_factory=list)

    def report(self, outcome: LeafState | LeafFailure) -> None:
        if isinstance(outcome, LeafFailure):
            if all(outcome.error != earlier.error for earlier in self.failures):  # each reason is said once
                self.context.log.error(f"{outcome.leaf}: failed (attempt {outcome.attempts}): {outcome.error}")
            self.failures.append(outcome)
            return
        self.states.append(outcome)
        kept = f"kept {outcome.funnel['kept']} of {outcome.funnel['generated']} rows"
        self.context.log.info(f"{outcome.leaf}: {kept} ({total(outcome.spent.values()).calls} teacher calls)")
        if outcome.shortfall:
            self.context.log.warning(f"{outcome.leaf}: {outcome.shortfall}")
        for event in _materializations(self.home, self.settings, self.plans[outcome.leaf], outcome):
            if event.asset_key in self.context.selected_asset_keys:
                self.context.log_event(event)


def _requested_leaves(context: dg.AssetExecutionContext, lab: Lab) -> list[str]:
    """Return the leaves of the run's partitions without withdrawn leaves, none if nothing is to be generated; log why."""
    if not lab.settings.mixing.generated:
        context.log.info("mixing.generated is false in settings.yaml: no rows are generated")
        return []
    leaves, withdrawn = [leaf_of(partition) for partition in context.partition_keys], withdrawals(lab.home)
    for leaf in withdrawn.keys() & set(leaves):
        context.log.warning(f"{leaf}: {withdrawn[leaf]}; not refreshed")
    return [leaf for leaf in leaves if leaf not in withdrawn]


def _check_base_model(context: dg.AssetExecutionContext, lab: Lab) -> None:
    """Raise if the base model cannot be trained, before any row is paid for; only warn if the model is missing."""
    try:
        require_fitness(lab.home, lab.settings)
    except ModelError as error:
        context.log.warning(f"could not check whether the base model can be trained: {error}")


def _of_run(done: Refreshed) -> dict[str, Any]:
    """Return what the run was expected to take and what it took as numbers, which the UI plots over the runs."""
    expected = {f"run expected {name}": value for name, value in asdict(done.expected).items() if name != "recalled"}
    return {**expected, **{f"run {name}": value for name, value in numbers_of(done.spent).items()}}


def _materializations(home: Home, settings: Settings, plan: LeafPlan, state: LeafState) -> Iterator[dg.AssetMaterialization]:
    tables: dict[Table, pa.Schema] = {"generated": GENERATED_SCHEMA, "judged": JUDGED_SCHEMA, "curated": CURATED_SCHEMA}
    for table, schema in tables.items():
        rows = read_rows(plan.path(home, table))
        metadata: dict[str, Any] = {
            "dagster/row_count": len(rows),
            "dagster/column_schema": column_schema(schema),
            "dagster/column_lineage": COLUMN_LINEAGE[f"{table}_instructions"],
            **(numbers_of(state.spent[table]) if table in state.spent else {}),
            "flow": plan.flow.name,
            "preview": preview(rows, ["question", "answer"]),
            "path": dg.MetadataValue.path(plan.path(home, table)),
            "page": dg.MetadataValue.url(link(home, settings, "rows", leaf=state.leaf)),
        }
        if table == "judged":
            scores = [score["score"] for row in rows for score in row["scores"] if score["score"] is not None]
            metadata["mean_score"] = sum(scores) / len(scores) if scores else 0.0
        if table == "curated":
            metadata |= {
                "kept_share": len(rows) / max(state.funnel["generated"], 1),
                "funnel": counts(state.funnel, "stage"),
                "rounds": state.rounds,
                **({"rows_wanted": state.rows_wanted} if state.rows_wanted else {}),
                "rules_off": texts([{"rule": rule, "why": why} for rule, why in state.rules_off.items()], ["rule", "why"]),
                "rejected": dg.MetadataValue.path(plan.path(home, "rejected")),
            }
        yield dg.AssetMaterialization(
            asset_key(f"{table}_instructions"),
            partition=partition_of(state.leaf),
            metadata=short(metadata),
            tags={"dagster/data_version": getattr(state, table)},
        )
