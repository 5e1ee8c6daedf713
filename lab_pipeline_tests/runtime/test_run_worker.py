"""A run of the command line belongs to the code location that the UI shows."""

import dagster as dg
from dagster._core.storage.tags import REPOSITORY_LABEL_TAG
from dagster._core.workspace.load_target import WorkspaceFileTarget

from lab_pipeline.core.home import PROJECT
from lab_pipeline.definitions import defs
from lab_pipeline.runtime import run_worker


@dg.op
def nothing() -> None:
    pass


def small() -> dg.JobDefinition:
    return dg.GraphDefinition("retune", node_defs=[nothing]).to_job(executor_def=dg.in_process_executor)


def test_runs_stand_in_the_ui_under_their_job(monkeypatch):
    monkeypatch.setitem(run_worker.JOBS, "retune", small)
    (location,) = WorkspaceFileTarget([str(PROJECT / "workspace.yaml")]).create_origins()
    with dg.instance_for_test() as instance:
        assert run_worker.main("retune", "a launch") == 0
        (run,) = instance.get_runs(
            dg.RunsFilter(
                job_name="retune",
                tags={REPOSITORY_LABEL_TAG: f"{defs.get_repository_def().name}@{location.location_name}"},
            )
        )
    assert run.is_success
    assert run.remote_job_origin
    assert run.remote_job_origin.location_name == location.location_name
