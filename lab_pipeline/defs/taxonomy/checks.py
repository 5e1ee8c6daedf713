import dagster as dg

from lab_pipeline.defs.resources import Lab
from lab_pipeline.defs.taxonomy.assets import taxonomy_snapshot
from lab_pipeline.taxonomy.snapshot import current_snapshot


@dg.asset_check(asset=taxonomy_snapshot)
def every_leaf_is_usable(lab: Lab) -> dg.AssetCheckResult:
    """Check that no leaf is quarantined. A warning: the other leaves are used anyway."""
    snapshot = current_snapshot(lab.home)
    broken = [row["leaf"] for row in snapshot.rows if not row["usable"]]
    problems = "\n".join(f"- {problem}" for leaf in broken for problem in snapshot.problems[leaf])
    return dg.AssetCheckResult(
        passed=not broken,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"quarantined": len(broken), "problems": dg.MetadataValue.md(problems or "none")},
    )
