from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from lab_pipeline.config.settings import initial_settings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.datasets.heldout_questions import load_heldout
from lab_pipeline.defs.automation import nightly_retune, taxonomy_changes
from lab_pipeline.defs.datasets.assets import heldout_questions
from lab_pipeline.defs.partitions import partition_of
from lab_pipeline.defs.resources import Lab, RetuneLock
from lab_pipeline.defs.taxonomy.assets import taxonomy_snapshot
from lab_pipeline.reports.status import status_report
from lab_pipeline.taxonomy.snapshot import current_snapshot
from lab_pipeline_tests.builders import FREEFORM, edit_yaml, write_skill
from lab_pipeline_tests.datasets.filled import FilledHome, filled_home
from lab_pipeline_tests.repositories import commit_files, git


@pytest.fixture
def filled(tmp_path: Path) -> FilledHome:
    filled = filled_home(tmp_path)
    filled.home.settings_file.write_text(initial_settings(filled.taxonomy))
    return filled


def test_the_test_is_of_the_snapshot_that_the_catalog_is_from(filled):
    catalog = filled.catalog()
    edit_yaml(
        filled.taxonomy / FREEFORM / "qna.yaml",
        lambda value: [seed.update(answer="Meanwhile.") for seed in value["seed_examples"]],
    )
    assert filled.snapshot().id != catalog.snapshot
    root = str(filled.home.root)
    with dg.DagsterInstance.ephemeral() as instance:
        resources = {"lab": Lab(root=root), "retune_lock": RetuneLock(root=root)}
        assert dg.materialize([heldout_questions], resources=resources, instance=instance).success
    questions = load_heldout(filled.home)["leaves"][FREEFORM]
    assert questions and "Meanwhile." not in [question["answer"] for question in questions]


def test_a_quarantined_leaf_says_so_and_why_on_its_partition(tmp_path):
    qna = write_skill(tmp_path / "taxonomy", FREEFORM)
    home = Home.open(tmp_path / "home")
    home.settings_file.write_text(initial_settings(tmp_path / "taxonomy"))
    good = qna.read_text()
    contents = [good, good + "surprise: true\n", good + "surprise: true\n", good]
    with dg.DagsterInstance.ephemeral() as instance:
        for content in contents:
            qna.write_text(content)
            assert dg.materialize([taxonomy_snapshot], resources={"lab": Lab(root=str(home.root))}, instance=instance).success
        seen = instance.fetch_observations(dg.AssetKey("curated_instructions"), limit=10).records
    again, broken = [record.asset_observation for record in seen]
    assert broken.partition == again.partition == partition_of(FREEFORM)
    assert broken.metadata["state"].value == "quarantined" and "surprise" in broken.metadata["why"].value
    assert f"{FREEFORM}/qna.yaml:{len(good.splitlines()) + 1}: " in broken.description
    assert again.description == "usable again"


def test_a_home_pointed_at_another_taxonomy_is_refused_everywhere_in_the_same_words(tmp_path):
    for name in ("taxonomy", "other"):
        write_skill(tmp_path / name, FREEFORM)
    home = Home.open(tmp_path / "home")
    home.settings_file.write_text(initial_settings(tmp_path / "taxonomy"))
    lab = {"lab": Lab(root=str(home.root))}
    with dg.instance_for_test() as instance:  # a schedule's context takes no ephemeral one
        assert dg.materialize([taxonomy_snapshot], resources=lab, instance=instance).success
        home.settings_file.write_text(initial_settings(tmp_path / "other"))
        said = [
            taxonomy_changes(dg.build_sensor_context(instance, resources=lab)).skip_message,
            nightly_retune(dg.build_schedule_context(instance, datetime.now(UTC), lab)).skip_message,
        ]
        result = dg.materialize([taxonomy_snapshot], resources=lab, instance=instance, raise_on_error=False)
        (failure,) = [event for event in result.all_events if event.is_step_failure]
        said.append(failure.step_failure_data.user_failure_data.description)
    with pytest.raises(LabError) as caught:
        status_report(home)
    assert set(said) == {str(caught.value)}
    assert said[0].startswith(
        f"{home.root}: belongs to the taxonomy {tmp_path}/taxonomy, not {tmp_path}/other; give the other one its own home"
    )


def test_a_rewritten_history_stands_in_the_snapshots_metadata_and_log(tmp_path):
    taxonomy = tmp_path / "taxonomy"
    write_skill(taxonomy, FREEFORM)
    commit_files(taxonomy, {})
    home = Home.open(tmp_path / "home")
    home.settings_file.write_text(initial_settings(taxonomy, "main"))
    lab = {"lab": Lab(root=str(home.root))}
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(2):
            result = dg.materialize([taxonomy_snapshot], resources=lab, instance=instance)
            git(taxonomy, "commit", "--quiet", "--amend", "--message", "again")
        (materialization,) = result.asset_materializations_for_node("taxonomy_snapshot")
        (note,) = current_snapshot(home).notes
        assert materialization.metadata["notes"].value == note
        assert materialization.metadata["branch"].value == "main"
        assert materialization.metadata["page"].value == "http://127.0.0.1:3001/leaves"
        assert note in [entry.user_message for entry in instance.all_logs(result.run_id)]
