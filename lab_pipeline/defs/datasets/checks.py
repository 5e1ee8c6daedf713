from collections.abc import Iterator

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from lab_pipeline.datasets.catalog import CURATED_SCHEMA, curated_table, current_catalog, frozen_leaf
from lab_pipeline.datasets.dataset import Phase, load_dataset
from lab_pipeline.datasets.heldout_questions import heldout_prompts, load_heldout
from lab_pipeline.datasets.quality import (
    CHECKED_COLUMNS,
    ExpectationResult,
    curated_frame,
    load_suite,
    store_results,
    training_frame,
    validate,
)
from lab_pipeline.datasets.rows import user_texts
from lab_pipeline.defs.datasets.assets import instruction_catalog, knowledge_dataset, skills_dataset
from lab_pipeline.defs.resources import Lab
from lab_pipeline.pages.links import link
from lab_pipeline.text.leaks import LeakDetector

_Results = Iterator[dg.AssetCheckResult]
_SEVERITY = {"critical": dg.AssetCheckSeverity.ERROR, "warning": dg.AssetCheckSeverity.WARN}


def _specs(asset: dg.AssetsDefinition, suite: str) -> list[dg.AssetCheckSpec]:
    specs = []
    for each in load_suite(suite):
        about = f"{each.expectation} {each.arguments}"
        specs.append(dg.AssetCheckSpec(each.name, asset=asset, blocking=each.severity == "critical", description=about))
    return specs


def _report(asset: dg.AssetsDefinition, lab: Lab, suite: str, rows: int, found: list[ExpectationResult]) -> _Results:
    name = asset.key.path[-1]
    store_results(lab.home, name, suite, rows, found)
    results = dg.MetadataValue.url(f"{link(lab.home, lab.settings, 'quality')}#{name}")
    for finding in found:
        yield dg.AssetCheckResult(
            asset_key=asset.key,
            check_name=finding.name,
            passed=finding.passed,
            severity=_SEVERITY[finding.severity],
            metadata={"observed": finding.observed, "all_results": results},
        )


@dg.asset_check(asset=instruction_catalog)
def leaves_are_current(lab: Lab) -> dg.AssetCheckResult:
    """Check that no leaf is stale, quarantined or withdrawn. A warning: a stale or quarantined leaf's last good rows are used.

    A leaf is stale if its rows were made from another state of its taxonomy folder, its flow, the teacher or the judge.
    """
    catalog = current_catalog(lab.home)
    notes = "\n".join(f"- `{entry['leaf']}`: {entry['state']}: {entry['note']}" for entry in catalog.leaves if entry["note"])
    return dg.AssetCheckResult(
        passed=not notes,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"leaves_behind": len(catalog.stale), "notes": dg.MetadataValue.md(notes or "none")},
    )


@dg.asset_check(asset=instruction_catalog)
def every_leaf_has_rows(lab: Lab) -> dg.AssetCheckResult:
    """Check that each leaf for which rows are to be generated has at least one. A warning: the other leaves are used anyway."""
    leaves = current_catalog(lab.home).leaves
    empty = [entry["leaf"] for entry in leaves if not entry["rows"] and entry["state"] != "not generated"]
    return dg.AssetCheckResult(
        passed=not empty, severity=dg.AssetCheckSeverity.WARN, metadata={"empty_leaves": ", ".join(empty) or "none"}
    )


@dg.multi_asset_check(name="curated_rows_meet_expectations", specs=_specs(instruction_catalog, "curated_rows"))
def curated_rows_meet_expectations(lab: Lab) -> Iterator[dg.AssetCheckResult]:
    """Validate the curated rows of all leaves in use with Great Expectations, and store the results for the pages."""
    home, columns = lab.home, ["id", "leaf", "question", "answer", "fault"]
    empty = CURATED_SCHEMA.empty_table().select(columns)
    rows = pa.concat_tables([empty, *(curated_table(home, entry, columns) for entry in current_catalog(home).in_use)])
    findings = validate(curated_frame(rows), "curated_rows")
    yield from _report(instruction_catalog, lab, "curated_rows", len(rows), findings)


def _dataset_checks(asset: dg.AssetsDefinition, phase: Phase) -> dg.AssetChecksDefinition:
    leak = dg.AssetCheckSpec(
        "no_heldout_question_leaks",
        asset=asset,
        blocking=True,
        description="No training row repeats a test question, and no seed shown to the teacher repeats a held-out one.",
    )

    @dg.multi_asset_check(name=f"{phase}_rows_meet_expectations", specs=[*_specs(asset, "training_rows"), leak])
    def check(lab: Lab) -> Iterator[dg.AssetCheckResult]:
        home = lab.home
        rows = pq.read_table(load_dataset(home, phase).path, columns=CHECKED_COLUMNS)
        findings = validate(training_frame(rows), "training_rows")
        if not rows:  # a taxonomy without leaves of this phase is none the worse for it
            findings = [ExpectationResult(each.name, each.severity, True, "no rows") for each in findings]
        yield from _report(asset, lab, "training_rows", len(rows), findings)
        heldout = load_heldout(home)
        trained, _ = user_texts(rows)
        sources = [frozen_leaf(home, entry) for entry in current_catalog(home).in_use]
        shown = [seed["asked"] for source in sources for seed in source["seeds"]]
        test = LeakDetector(heldout_prompts(heldout))
        leaf_test = LeakDetector(heldout_prompts({**heldout, "general": []}))
        found = [*test.leaks_among(trained).values(), *filter(None, map(leaf_test.leak, shown))]
        yield dg.AssetCheckResult(
            asset_key=asset.key,
            check_name=leak.name,
            passed=not found,
            metadata={"questions_compared": len(trained) + len(shown), "leaked": ", ".join(found[:5]) or "none"},
        )

    return check


knowledge_rows_meet_expectations = _dataset_checks(knowledge_dataset, "knowledge")
skills_rows_meet_expectations = _dataset_checks(skills_dataset, "skills")
