import dagster as dg
import pytest

from lab_pipeline.core.home import Home
from lab_pipeline.definitions import defs
from lab_pipeline.defs.promotion.rollback import rollback
from lab_pipeline.defs.resources import Lab
from lab_pipeline.registry.champion import current_champion, history, promote
from lab_pipeline_tests.registry.promotions import evaluation
from lab_pipeline_tests.webhook import webhook


@pytest.fixture
def home(tmp_path) -> Home:
    home = Home.open(tmp_path / "home")
    home.settings_file.write_text("taxonomy: {path: .}\nnotifications: {webhook_env: LAB_TEST_WEBHOOK}\n")
    promote(home, evaluation(home, "one"))
    promote(home, evaluation(home, "two", "one"))
    return home


def run(home: Home, instance: dg.DagsterInstance, **config: str) -> dg.ExecuteInProcessResult:
    return rollback.execute_in_process(
        run_config={"ops": {"move_alias": {"config": config}}},
        resources={"lab": Lab(root=str(home.root))},
        instance=instance,
        raise_on_error=False,
    )


def test_the_job_moves_the_alias_tells_people_and_the_assets_history_shows_it(home, monkeypatch):
    with dg.DagsterInstance.ephemeral() as instance, webhook() as hook:
        monkeypatch.setenv("LAB_TEST_WEBHOOK", hook.url)
        assert run(home, instance, author="Anna", reason="answers in rhymes").success
        event = instance.get_latest_materialization_event(dg.AssetKey("champion_model"))
    assert current_champion(home).id == "one"
    assert hook.texts == ["Anna made one the champion: answers in rhymes"]
    assert history(home)[-1].items() >= {"event": "rollback", "author": "Anna", "reason": "answers in rhymes"}.items()
    assert event.asset_materialization.metadata["champion"].value == "one"


def test_what_cannot_be_is_said_without_a_traceback(home):
    with dg.DagsterInstance.ephemeral() as instance:
        result = run(home, instance, author="Anna", reason="why", to="nobody")
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert failure.step_failure_data.user_failure_data.description == "nobody: no earlier champion; there are: one"
    assert current_champion(home).id == "two"


def test_the_launchpad_wants_a_name_and_a_reason():
    job = defs.resolve_job_def("rollback")
    valid = dg.validate_run_config(job, {"ops": {"move_alias": {"config": {"author": "Anna", "reason": "why"}}}})
    assert valid
    with pytest.raises(dg.DagsterInvalidConfigError, match="reason"):
        dg.validate_run_config(job, {"ops": {"move_alias": {"config": {"author": "Anna"}}}})
