import subprocess
import sys

import dagster as dg

from lab_pipeline.core.processes import is_alive, this_process
from lab_pipeline.runtime.reaping import PROCESS_TAG, reap_dead_runs


@dg.op
def work():
    pass


@dg.job
def some_job():
    work()


def unfinished_run(instance: dg.DagsterInstance, process: str) -> str:
    run = instance.create_run_for_job(some_job, tags={PROCESS_TAG: process})
    instance.report_engine_event("started", run)
    instance.report_dagster_event(dg.DagsterEvent(dg.DagsterEventType.PIPELINE_START.value, some_job.name), run_id=run.run_id)
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.STARTED
    return run.run_id


def name_of_a_dead_process() -> str:
    script = "from lab_pipeline.core.processes import this_process; print(this_process())"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()


def test_a_process_is_known_by_pid_and_start_time():
    me = this_process()
    assert is_alive(me)
    assert not is_alive(f"{me.split('@')[0]}@1.00"), "another process under the same pid"
    assert not is_alive(name_of_a_dead_process())


def test_a_run_whose_process_is_gone_is_failed_and_one_that_runs_is_left_alone():
    said: list[str] = []
    with dg.DagsterInstance.ephemeral() as instance:
        dead, living = unfinished_run(instance, name_of_a_dead_process()), unfinished_run(instance, this_process())
        assert reap_dead_runs(instance, said.append) == 1
        assert instance.get_run_by_id(dead).status == dg.DagsterRunStatus.FAILURE
        assert instance.get_run_by_id(living).status == dg.DagsterRunStatus.STARTED
        assert dead in said[0]
        assert reap_dead_runs(instance, said.append) == 0


def test_a_slot_that_an_ended_run_could_not_free_is_freed():
    with dg.DagsterInstance.ephemeral() as instance:
        instance.event_log_storage.set_concurrency_slots("gpu", 1)
        ended, living = (unfinished_run(instance, this_process()) for _ in range(2))
        instance.event_log_storage.claim_concurrency_slot("gpu", ended, "train")
        instance.report_run_failed(instance.get_run_by_id(ended))
        assert reap_dead_runs(instance, print) == 0
        assert instance.event_log_storage.claim_concurrency_slot("gpu", living, "train").is_claimed
        assert reap_dead_runs(instance, print) == 0
        assert instance.event_log_storage.get_concurrency_run_ids() == {living}


def test_a_run_whose_process_was_killed_before_it_could_start_it_is_failed_too():
    with dg.DagsterInstance.ephemeral() as instance:
        run = instance.create_run_for_job(some_job, tags={PROCESS_TAG: name_of_a_dead_process()})
        assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.NOT_STARTED
        assert reap_dead_runs(instance, print) == 1
        assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE
