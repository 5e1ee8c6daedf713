from pathlib import Path

import dagster as dg
import pytest

from lab_pipeline.config.settings import initial_settings
from lab_pipeline.core.home import Home
from lab_pipeline.datasets.heldout_questions import load_heldout
from lab_pipeline.defs.datasets.assets import heldout_questions
from lab_pipeline.defs.resources import Lab, RetuneLock
from lab_pipeline.defs.taxonomy.assets import taxonomy_snapshot
from lab_pipeline.taxonomy.snapshot import current_snapshot
from lab_pipeline_tests.builders import FREEFORM, edit_yaml, write_taxonomy
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


def test_a_rewritten_history_stands_in_the_snapshots_metadata_and_log(tmp_path):
    taxonomy = write_taxonomy(tmp_path / "taxonomy")
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
