from collections.abc import Iterator
from itertools import islice

import dagster as dg

from lab_pipeline.config.settings import read_settings
from lab_pipeline.core.progress import Progress
from lab_pipeline.core.rows import SNAPSHOT_SCHEMA
from lab_pipeline.defs.code_location import PREFIX, asset_key
from lab_pipeline.defs.metadata import column_schema, texts
from lab_pipeline.defs.partitions import LEAVES_NAME, partition_of, register
from lab_pipeline.defs.resources import Lab, errors_as_failures
from lab_pipeline.flows.choose import passage_budgets
from lab_pipeline.pages.links import link
from lab_pipeline.reports.leaves import leaf_states, problems_by_severity, read_documents
from lab_pipeline.reports.notifications import newly_quarantined, notify
from lab_pipeline.taxonomy.snapshot import Snapshot, current_snapshot, take_snapshot

_MOST_SHOWN = 100
"""Maximum number of rows of a table in the UI; the stored snapshot has them all."""


@dg.asset(key_prefix=PREFIX, group_name="taxonomy", kinds={"git", "yaml"}, owners=["team:lab"])
def taxonomy_snapshot(context: dg.AssetExecutionContext, lab: Lab) -> dg.MaterializeResult:
    """Read the taxonomy: one row for each leaf, either usable, or quarantined with file, line and reason.

    Usable leaves become partitions. Their content is frozen, so that all later assets see the same state. The snapshot is
    stored below `snapshots/` in the home.
    """
    with errors_as_failures():
        home, settings = lab.home, lab.settings
        home.claim(read_settings(home.settings_file).taxonomy.path)
        progress = Progress("leaves read", 0, context.log.info)

        def on_progress(done: int, total: int, leaf: str) -> None:
            progress.total = total
            progress.advance(note=leaf)

        before = current_snapshot(home) if home.current_snapshot.exists() else None
        snapshot = take_snapshot(home, settings, on_progress, passage_budgets(home, settings))
    if news := newly_quarantined(before, snapshot):
        notify(settings, news, context.log.warning)
    register(context.instance, list(snapshot.usable))
    for event in _changed_partitions(before, snapshot, set(context.instance.get_dynamic_partitions(LEAVES_NAME))):
        context.log_event(event)
    for note in snapshot.notes:
        context.log.warning(note)
    for found in snapshot.problems.values():
        for problem in found:
            context.log.warning(problem)
    problems = problems_by_severity(snapshot)
    return dg.MaterializeResult(
        # Constant, so that a new snapshot alone does not mark every leaf as out of date: each leaf has its own fingerprint.
        data_version=dg.DataVersion("snapshot"),
        metadata={
            "dagster/row_count": len(snapshot.rows),
            "dagster/column_schema": column_schema(SNAPSHOT_SCHEMA),
            "leaves": len(snapshot.rows),
            "usable_leaves": len(snapshot.usable),
            "quarantined_leaves": len(snapshot.rows) - len(snapshot.usable),
            "problems": len(problems),
            "problems_table": texts(problems[:_MOST_SHOWN], ["severity", "problem", "file", "line", "leaf"]),
            "snapshot": snapshot.id,
            "taxonomy_commit": snapshot.taxonomy_commit or "not under version control",
            "branch": snapshot.branch or "none",
            "notes": "\n".join(snapshot.notes) or "none",
            "leaves_table": texts(
                leaf_states(snapshot)[:_MOST_SHOWN], ["leaf", "kind", "state", "seeds", "held out", "warnings"]
            ),
            "documents_table": texts(
                islice(read_documents(home, snapshot), _MOST_SHOWN),
                ["document", "reader", "passages", "words", "leaf"],
            ),
            "all_problems": dg.MetadataValue.json(snapshot.problems),
            "path": dg.MetadataValue.path(home.snapshot(snapshot.id)),
            "page": dg.MetadataValue.url(link(home, settings, "leaves")),
        },
    )


def _changed_partitions(before: Snapshot | None, now: Snapshot, partitions: set[str]) -> Iterator[dg.AssetObservation]:
    """Yield what the partition of a leaf is to show: that it is quarantined, with the reason, or that it is usable again.

    A leaf that stayed as it was gives nothing, and neither does one that was never usable, as it has no partition.
    """
    earlier, reasons = _quarantined(before) if before else {}, _quarantined(now)
    for row in now.rows:
        why, partition = reasons.get(row["leaf"]), partition_of(row["leaf"])
        if why != earlier.get(row["leaf"]) and partition in partitions:
            yield dg.AssetObservation(
                asset_key("curated_instructions"),
                partition=partition,
                description=f"quarantined, its last good rows stay in use: {why}" if why else "usable again",
                metadata={"state": "quarantined", "why": why} if why else {"state": "usable"},
            )


def _quarantined(snapshot: Snapshot) -> dict[str, str]:
    return {row["leaf"]: "; ".join(snapshot.problems[row["leaf"]]) for row in snapshot.rows if not row["usable"]}
