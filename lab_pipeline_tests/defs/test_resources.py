import re
import threading
import time

import dagster as dg
import pytest
from filelock import FileLock

from lab_pipeline.config.recipe import Strategy
from lab_pipeline.config.settings import SettingsError
from lab_pipeline.core.home import Home
from lab_pipeline.defs.private_dagster import DagsterExecutionInterruptedError
from lab_pipeline.defs.resources import Lab, RetuneLock, ThisRun, errors_as_failures, launchable_lab
from lab_pipeline_tests.builders import settings_for


def test_what_a_run_leaves_out_stays_as_the_settings_say(tmp_path):
    settings = settings_for(tmp_path, seed=5)
    assert ThisRun().applied_to(settings, tmp_path) == settings


def test_what_a_run_gives_holds_for_it(tmp_path):
    settings = settings_for(tmp_path)
    changed = ThisRun(recipe="other", seed=3, teacher_calls=7, confidence=0.9, minimum_gain=0.5).applied_to(settings, tmp_path)
    assert (changed.recipe, changed.seed, changed.budgets.teacher_calls) == ("other", 3, 7)
    assert (changed.gate.confidence, changed.gate.minimum_gain) == (0.9, 0.5)
    assert changed.gate.general_tolerance == settings.gate.general_tolerance
    assert changed.teacher == settings.teacher


def test_a_recipe_beside_the_settings_is_found_from_the_launchpad(tmp_path):
    (tmp_path / "mine.yaml").touch()
    assert ThisRun(recipe="mine.yaml").applied_to(settings_for(tmp_path), tmp_path).recipe == str(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"seed": -1}, "seed: Input should be greater than or equal to 0, found -1"),
        ({"confidence": 1.5}, "gate.confidence: Input should be less than 1"),
        ({"teacher_calls": 0}, "budgets.teacher_calls: Input should be greater than or equal to 1"),
    ],
)
def test_a_value_out_of_its_bounds_is_refused_by_name(tmp_path, wrong, said):
    with pytest.raises(SettingsError, match=f"launchpad, this_run: {said}"):
        ThisRun(**wrong).applied_to(settings_for(tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"seed": -1}, "launchpad, this_run: seed: Input should be greater than or equal to 0, found -1"),
        ({"confidence": 1.5}, "launchpad, this_run: gate.confidence: Input should be less than 1"),
        ({"recipe": "nosuch"}, "no recipe 'nosuch'"),
        ({"seed": 3, "strategy": "stacked", "recipe": "lab_phased"}, None),
    ],
)
def test_a_wrong_value_is_refused_before_there_is_a_run_that_could_turn_assets_red(tmp_path, wrong, said):
    home = Home.open(tmp_path / "home")
    home.settings_file.write_text("taxonomy: {path: .}\n")
    seen: list[tuple[int, bool]] = []

    @dg.asset
    def trained(lab: Lab) -> None:
        seen.append((lab.settings.seed, lab.recipe.stacked))

    defs = dg.Definitions([trained], resources={"lab": launchable_lab(home.root)}, jobs=[dg.define_asset_job("retune", "*")])
    job, config = defs.resolve_job_def("retune"), {"resources": {"lab": {"config": {"this_run": wrong}}}}
    with dg.DagsterInstance.ephemeral() as instance:
        if said:
            with pytest.raises(dg.DagsterInvariantViolationError, match=re.escape(said)):
                instance.create_run_for_job(job, run_config=config)
            assert instance.get_runs() == []
        else:
            assert job.execute_in_process(instance=instance, run_config=config).success
            assert job.execute_in_process(instance=instance).success
            assert seen == [(3, True), (17, False)]
            assert not [run for run in instance.get_runs() if str(home.root) in str(run.run_config)]


def test_every_launchpad_field_is_described_with_its_bounds():
    for name, field in ThisRun.model_fields.items():
        assert field.description and "Left out" in field.description, name
    assert "more than 0.5, less than 1" in ThisRun.model_fields["confidence"].description


def test_a_strategy_given_at_launch_changes_the_recipe(tmp_path):
    home = Home.open(tmp_path / "home")
    home.settings_file.write_text("taxonomy: {path: .}\n")
    assert Lab(root=str(home.root)).recipe.strategy == Strategy.phased
    assert Lab(root=str(home.root), this_run=ThisRun(strategy=Strategy.stacked)).recipe.stacked


def test_one_run_at_a_time_holds_the_retune_lock(tmp_path):
    held: list[str] = []

    @dg.asset
    def late(retune_lock: RetuneLock) -> None:
        held.append("late")

    with (
        FileLock(Home.open(tmp_path).root / "tail.lock", thread_local=False) as other,
        dg.DagsterInstance.ephemeral() as instance,
    ):

        def end_soon() -> None:
            time.sleep(1.5)
            held.append("other")
            other.release()

        threading.Thread(target=end_soon).start()
        assert dg.materialize([late], resources={"retune_lock": RetuneLock(root=str(tmp_path))}, instance=instance).success
    assert held == ["other", "late"]


def test_an_interruption_that_met_tasks_is_no_failure():
    group = BaseExceptionGroup("tasks", [DagsterExecutionInterruptedError(), BaseExceptionGroup("more", [KeyboardInterrupt()])])
    with pytest.raises(DagsterExecutionInterruptedError), errors_as_failures():
        raise group
    with pytest.raises(BaseExceptionGroup), errors_as_failures():
        raise BaseExceptionGroup("tasks", [KeyboardInterrupt()])
