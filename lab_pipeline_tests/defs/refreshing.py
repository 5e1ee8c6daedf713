"""Refresh a leaf through Dagster, in this process."""

import dagster as dg

from lab_pipeline.defs.instructions.assets import leaf_instructions
from lab_pipeline.defs.partitions import partition_of
from lab_pipeline.defs.resources import Lab
from lab_pipeline.defs.taxonomy.assets import taxonomy_snapshot
from lab_pipeline_tests.builders import FREEFORM
from lab_pipeline_tests.lab import TestLab


def refreshed(opened: TestLab, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    """Take a snapshot, and refresh the freeform leaf's three assets."""
    given = {"resources": {"lab": Lab(root=str(opened.home.root))}, "instance": instance}
    assert dg.materialize([taxonomy_snapshot], **given).success
    return dg.materialize(
        [taxonomy_snapshot, leaf_instructions],
        selection=["generated_instructions", "judged_instructions", "curated_instructions"],
        partition_key=partition_of(FREEFORM),
        **given,
    )
