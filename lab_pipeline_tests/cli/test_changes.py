"""`lab-pipeline diff` and `preview` as processes, in a plain clone of a taxonomy without any home."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab_pipeline_tests.builders import FREEFORM, write_taxonomy
from lab_pipeline_tests.repositories import commit_files, git
from lab_pipeline_tests.stub_endpoint import Answer, Asked, StubEndpoint
from lab_pipeline_tests.taxonomy.sources import touch_qna


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone whose freeform leaf was edited since."""
    commit_files(write_taxonomy(tmp_path / "origin"), {})
    git(tmp_path, "clone", "--quiet", "origin", "clone")
    touch_qna(tmp_path / "clone")
    return tmp_path / "clone"


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LAB_HOME": str(folder.parent / "no home")}
    command = [sys.executable, "-m", "lab_pipeline.cli.app", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_diff_names_the_changed_leaves_of_the_current_folder_or_of_a_path(clone):
    assert run(clone, "diff", "--base", "origin/main").stdout == f"modified  {FREEFORM}\n"
    found = json.loads(run(clone.parent, "diff", "--base", "origin/main", "--json", "clone").stdout)
    assert found == {"base": git(clone, "rev-parse", "HEAD"), "added": [], "modified": [FREEFORM], "removed": []}


@pytest.mark.parametrize("command", ["diff", "preview"])
def test_what_git_cannot_tell_is_one_sentence_and_exit_code_2(clone, command):
    for base, path, said in (("none", "clone", "no branch, tag or commit 'none'"), ("main", ".", "not in a git repository")):
        done = run(clone.parent, command, "--base", base, path)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert done.stderr.startswith("error: ") and said in done.stderr


def test_preview_needs_no_home_and_leaves_nothing_behind(clone):
    done = run(clone, "preview", "--base", "origin/main")
    assert done.returncode == 0, done.stderr
    assert f"## ` {FREEFORM} ` (modified)" in done.stdout and "expected calls" in done.stdout
    assert sorted(path.name for path in clone.parent.iterdir()) == ["clone", "origin"]


def test_preview_samples_with_the_teacher_of_the_home(clone):
    def reply(asked: Asked) -> Answer:
        return Answer("[[Yes]] It is so. Write a line about a lamp for the neighbour.")

    home = clone.parent / "home"
    home.mkdir()
    with StubEndpoint(reply) as stub:
        teacher = f"{{kind: endpoint, url: '{stub.url}', model: stub}}"
        (home / "settings.yaml").write_text(f"taxonomy: {{path: elsewhere}}\nteacher: {teacher}\n")
        done = run(clone, "preview", "--base", "origin/main", "--sample", "1", "--home", str(home))
    assert done.returncode == 0, done.stderr
    assert "A sample" in done.stdout and "```text" in done.stdout and stub.requests
    assert [path.name for path in home.iterdir()] == ["settings.yaml"]
    assert "settings.yaml: not found" in run(clone, "preview", "--base", "main", "--home", "none").stderr
