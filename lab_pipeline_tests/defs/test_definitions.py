import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import dagster as dg
import pytest
import yaml

from lab_pipeline.definitions import defs
from lab_pipeline.runtime.run_worker import JOBS
from lab_pipeline.training.failure import LONGEST_STEP_SECONDS

PACKAGE = Path(__file__).parents[2] / "lab_pipeline"


def test_the_graph_is_what_was_reviewed():
    graph = defs.resolve_asset_graph()
    assert {
        key.to_user_string(): (
            graph.get(key).group_name,
            sorted(parent.to_user_string() for parent in graph.get(key).parent_keys),
        )
        for key in graph.get_all_asset_keys()
    } == {
        "taxonomy_snapshot": ("taxonomy", []),
        "generated_instructions": ("instructions", ["taxonomy_snapshot"]),
        "judged_instructions": ("instructions", ["generated_instructions"]),
        "curated_instructions": ("instructions", ["judged_instructions"]),
        "instruction_catalog": ("datasets", ["curated_instructions", "taxonomy_snapshot"]),
        "exam_questions": ("datasets", ["instruction_catalog"]),
        "heldout_questions": ("datasets", ["exam_questions", "instruction_catalog", "taxonomy_snapshot"]),
        "knowledge_dataset": ("datasets", ["heldout_questions", "instruction_catalog"]),
        "skills_dataset": ("datasets", ["heldout_questions", "instruction_catalog", "knowledge_dataset"]),
        "base_model": ("checkpoints", []),
        "knowledge_checkpoint": ("checkpoints", ["base_model", "knowledge_dataset"]),
        "skills_checkpoint": ("checkpoints", ["base_model", "knowledge_checkpoint", "skills_dataset"]),
        "evaluation_report": ("promotion", ["base_model", "heldout_questions", "skills_checkpoint"]),
        "champion_model": ("promotion", ["evaluation_report"]),
    }


def test_jobs_sensors_and_schedules_are_what_was_reviewed():
    repository = defs.get_repository_def()
    assert sorted(name for name in repository.job_names if not name.startswith("__")) == [
        "refresh_leaves",
        "retune",
        "rollback",
        "snapshot_taxonomy",
    ]
    assert sorted(JOBS) == ["refresh_leaves", "retune", "snapshot_taxonomy"]
    assert sorted(sensor.name for sensor in repository.sensor_defs) == [
        "crashed_runs",
        "stale_leaves",
        "taxonomy_changes",
        "waiting_retunes",
    ]
    assert [schedule.name for schedule in repository.schedule_defs] == ["nightly_retune"]


def test_one_run_at_a_time_asks_the_teacher():
    """So that the bound of requests in flight holds over all runs on a home."""
    concurrency = yaml.safe_load((PACKAGE.parent / "dagster.yaml").read_text())["concurrency"]
    assert concurrency["pools"] == {"granularity": "op", "default_limit": 1}
    asking = defs.resolve_asset_graph().get(dg.AssetKey("generated_instructions")).assets_def
    assert (asking.op.pool, len(asking.keys)) == ("teacher", 3)


def test_every_asset_has_a_description_an_owner_and_kinds():
    for spec in defs.resolve_all_asset_specs():
        assert spec.description and spec.owners and spec.kinds, spec.key


def test_definitions_load():
    dg.Definitions.validate_loadable(defs)


@cache
def loaded(module: str) -> set[str]:
    """The modules that a new process has loaded after importing this one."""
    script = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_loading_the_definitions_loads_no_heavy_package():
    heavy = {"torch", "transformers", "great_expectations", "pandas", "lingua", "kubernetes", "dagster_k8s"}
    assert not heavy & loaded("lab_pipeline.definitions")


@pytest.mark.parametrize("module", ["lab_pipeline.definitions", "lab_pipeline.runtime.run_worker"])
def test_sqlalchemy_is_whole_before_a_run_starts(module):
    """Else Great Expectations loads the rest of it while a thread of Dagster's uses it."""
    assert "sqlalchemy.orm" in loaded(module)


def imported(path: Path) -> list[str]:
    """The modules that a file imports, anywhere in it."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return plain + [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]


def test_only_one_module_imports_what_is_private_to_dagster():
    private = {path for path in PACKAGE.rglob("*.py") for name in imported(path) if re.match(r"dagster\w*(\.\w+)*\._", name)}
    assert private == {PACKAGE / "defs" / "private_dagster.py"}


def test_the_workspace_validates():
    command = [sys.executable, "-m", "dagster", "definitions", "validate", "-w", "workspace.yaml"]
    done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_cancelled_run_waits_as_long_as_its_trainer_may_take_to_save():
    """Dagster's own bound of 20 s would leave the trainer alone with its step, and the run with a traceback."""
    trainer = (defs.resources or {})["trainer"]
    assert trainer.forward_termination and trainer.termination_timeout_seconds == LONGEST_STEP_SECONDS
