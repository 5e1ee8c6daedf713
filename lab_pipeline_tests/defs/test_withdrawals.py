import dagster as dg

from lab_pipeline.defs.instructions.assets import leaf_instructions
from lab_pipeline.defs.partitions import partition_of
from lab_pipeline.defs.resources import Lab
from lab_pipeline.defs.taxonomy.assets import taxonomy_snapshot
from lab_pipeline.instructions.plan import leaf_state
from lab_pipeline.reports.status import status_report
from lab_pipeline.taxonomy.withdrawals import record_withdrawal
from lab_pipeline_tests.builders import FREEFORM, write_taxonomy
from lab_pipeline_tests.lab import lab


def test_a_withdrawn_leaf_asked_for_by_hand_costs_no_call_and_fails_no_run(tmp_path, tiny_model, monkeypatch):
    with lab(tmp_path, write_taxonomy(tmp_path / "taxonomy"), tiny_model, monkeypatch) as opened:
        resources = {"lab": Lab(root=str(opened.home.root))}
        with dg.DagsterInstance.ephemeral() as instance:
            assert dg.materialize([taxonomy_snapshot], resources=resources, instance=instance).success
            record_withdrawal(opened.home, FREEFORM, "Anna", "wrong licence")
            made = dg.materialize(
                [taxonomy_snapshot, leaf_instructions],
                selection=["generated_instructions", "judged_instructions", "curated_instructions"],
                partition_key=partition_of(FREEFORM),
                resources=resources,
                instance=instance,
            )
        assert made.success and opened.calls() == 0 and leaf_state(opened.home, FREEFORM) is None
        report = status_report(opened.home)
        assert report["leaves"][FREEFORM]["status"] == "withdrawn" and FREEFORM not in report["behind"]
        assert "wrong licence" in report["leaves"][FREEFORM]["problems"][0]
