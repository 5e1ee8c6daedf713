from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

from lab_pipeline.core.errors import LabError
from lab_pipeline.definitions import defs
from lab_pipeline.defs.instructions.assets import LeavesFailed, leaf_instructions
from lab_pipeline.defs.notifications import crashed_runs
from lab_pipeline.defs.resources import Lab, errors_as_failures
from lab_pipeline.defs.taxonomy.assets import taxonomy_snapshot
from lab_pipeline_tests.builders import FREEFORM, GROUNDED, write_taxonomy
from lab_pipeline_tests.lab import TestLab, lab
from lab_pipeline_tests.stub_endpoint import Answer
from lab_pipeline_tests.webhook import webhook

VARIABLE = "LAB_TEST_WEBHOOK"


@pytest.fixture
def hook(monkeypatch):
    with webhook() as opened:
        monkeypatch.setenv(VARIABLE, opened.url)
        yield opened


@pytest.fixture
def opened(tmp_path: Path, monkeypatch):
    """A home that notifies; its base model is never needed."""
    with lab(tmp_path, write_taxonomy(tmp_path / "taxonomy"), tmp_path, monkeypatch) as home:
        home.set(notifications={"webhook_env": VARIABLE})
        yield home


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def resources(opened: TestLab) -> dict[str, Lab]:
    return {"lab": Lab(root=str(opened.home.root))}


def test_a_snapshot_tells_of_a_leaf_that_broke_and_only_once(opened, hook, instance):
    def snapshot():
        return dg.materialize([taxonomy_snapshot], resources=resources(opened), instance=instance)

    assert snapshot().success and hook.texts == []
    with (opened.taxonomy / GROUNDED / "qna.yaml").open("a") as file:
        file.write("surprise: true\n")
    assert snapshot().success
    (told,) = hook.texts
    assert told.startswith("Quarantined") and f"- {GROUNDED}, {GROUNDED}/qna.yaml:" in told and "surprise" in told
    assert snapshot().success and len(hook.texts) == 1


def test_a_webhook_that_cannot_be_reached_fails_nothing(opened, hook, instance):
    hook.statuses = [500, 500]
    (opened.taxonomy / GROUNDED / "qna.yaml").write_text("no: leaf\n")
    assert dg.materialize([taxonomy_snapshot], resources=resources(opened), instance=instance).success
    assert len(hook.requests) == 2


def test_a_leaf_that_fails_three_times_asks_for_attention_once_and_is_no_crash(opened, hook, instance):
    opened.stub.reply = lambda asked: Answer(status=400, body="no")
    given = {"resources": resources(opened), "instance": instance}
    dg.materialize([taxonomy_snapshot], **given)
    told = []
    for _ in range(4):
        failed = dg.materialize([leaf_instructions], partition_key=FREEFORM, raise_on_error=False, **given)
        assert not failed.success
        told.append(len(hook.texts))
        assert tick(failed, opened, instance).skip_message == "only leaves failed"
    assert told == [0, 0, 1, 1]
    assert hook.texts[0].startswith(f"Failed 3 times and needs attention:\n- {FREEFORM}: ")


def tick(failed: dg.ExecuteInProcessResult, opened: TestLab, instance: dg.DagsterInstance) -> dg.SkipReason | None:
    """What the sensor makes of a failed run."""
    context = dg.build_run_status_sensor_context(
        "crashed_runs",
        failed.get_run_failure_event(),
        instance,
        instance.get_run_by_id(failed.run_id),
        resources=resources(opened),
    )
    return crashed_runs(context.for_run_failure())


def failed_run(instance: dg.DagsterInstance, *errors: Exception) -> dg.ExecuteInProcessResult:
    """A run whose steps fail, each with one of these errors."""

    def failing(number: int, error: Exception) -> dg.OpDefinition:
        @dg.op(name=f"op{number}")
        def fails():
            with errors_as_failures():
                raise error

        return fails

    @dg.job
    def crashing():
        for number, error in enumerate(errors):
            failing(number, error)()

    return crashing.execute_in_process(instance=instance, raise_on_error=False)


@pytest.mark.parametrize(
    ("errors", "said"),
    [
        ([RuntimeError("out of memory\nand more")], "RuntimeError: out of memory"),
        ([LabError("settings.yaml: seed: wrong\nother: wrong")], "settings.yaml: seed: wrong"),
        ([LeavesFailed("1 of 2 leaves failed"), ValueError("odd")], "ValueError: odd"),
        ([RuntimeError("")], "RuntimeError"),
    ],
)
def test_a_crashed_run_is_told_by_job_run_and_first_line(opened, hook, instance, errors, said):
    failed = failed_run(instance, *errors)
    assert tick(failed, opened, instance) is None
    assert hook.texts == [f"Run {failed.run_id} of crashing failed: {said}"]


def test_a_run_that_was_killed_is_told(opened, hook, instance):
    @dg.job
    def killed():
        pass

    run = instance.create_run_for_job(killed)
    event = instance.report_run_failed(run, "its process was killed")
    context = dg.build_run_status_sensor_context("crashed_runs", event, instance, run, resources=resources(opened))
    crashed_runs(context.for_run_failure())
    assert hook.texts == [f"Run {run.run_id} of killed failed: its process was killed"]


def test_without_a_webhook_nothing_is_told_and_wrong_settings_are_a_reason_to_skip(opened, hook, instance):
    failed = failed_run(instance, RuntimeError("boom"))
    opened.set(notifications={})
    assert tick(failed, opened, instance) is None and hook.requests == []
    opened.set(notifications={"webhook": "x"})
    assert "notifications.webhook" in tick(failed, opened, instance).skip_message


def test_the_sensor_is_on_and_tells_of_this_code_locations_runs_only(opened, hook, instance):
    def evaluated(cursor: str | None) -> str | None:
        context = dg.SensorEvaluationContext(
            instance_ref=None,
            last_tick_completion_time=None,
            last_run_key=None,
            cursor=cursor,
            log_key=None,
            repository_name="__repository__",
            instance=instance,
            repository_def=defs.get_repository_def(),
            resources=resources(opened),
            sensor_name="crashed_runs",
            code_location_origin=RegisteredCodeLocationOrigin("lab_pipeline"),
        )
        return crashed_runs.evaluate_tick(context).cursor

    def failed_in(location: str) -> str:
        repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(location), "__repository__")
        run = instance.create_run_for_job(killed, remote_job_origin=RemoteJobOrigin(repository, "killed"))
        instance.report_run_failed(run, "its process was killed")
        return run.run_id

    @dg.job
    def killed():
        pass

    assert crashed_runs.default_status == dg.DefaultSensorStatus.RUNNING
    failed_in("lab_pipeline")  # before the sensor was there
    cursor = evaluated(None)
    failed_in("of another team")
    mine = failed_in("lab_pipeline")
    evaluated(cursor)
    assert hook.texts == [f"Run {mine} of killed failed: its process was killed"]
