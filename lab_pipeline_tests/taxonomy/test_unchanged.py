"""Leaves that did not change are taken from the snapshot before, and all that a row depends on is a change."""

from __future__ import annotations

from pathlib import Path

import pytest

import lab_pipeline.taxonomy.snapshot as module
from lab_pipeline.config.settings import DocumentSettings
from lab_pipeline.core.home import Home
from lab_pipeline.taxonomy.documents.passages import PassageBudget, PassageBudgets
from lab_pipeline.taxonomy.snapshot import Snapshot, take_snapshot
from lab_pipeline_tests.builders import FOUNDATIONAL, FREEFORM, GROUNDED, KNOWLEDGE, edit_yaml, settings_for, write_taxonomy
from lab_pipeline_tests.repositories import commit_files


@pytest.fixture
def read(tmp_path, monkeypatch) -> list[str]:
    """The keys of the leaves that were read since it was last cleared."""
    keys: list[str] = []
    real = module.read_leaf

    def noting(taxonomy, key, *rest):
        keys.append(key)
        return real(taxonomy, key, *rest)

    monkeypatch.setattr(module, "read_leaf", noting)
    write_taxonomy(tmp_path / "taxonomy")
    commit = commit_files(tmp_path / "taxonomy" / "documents", {})
    edit_yaml(qna(tmp_path, KNOWLEDGE), lambda value: value["document"].update(commit=commit))
    take(tmp_path)
    keys.clear()
    return keys


def take(root: Path, budgets: PassageBudgets | None = None, **sections) -> Snapshot:
    home, settings = Home.open(root / "home"), settings_for(root / "taxonomy", **sections)
    return take_snapshot(home, settings, budgets=budgets or PassageBudgets())


def qna(root: Path, key: str) -> Path:
    return root / "taxonomy" / key / "qna.yaml"


def test_what_did_not_change_is_not_read_and_its_rows_stay(tmp_path, read):
    before = take(tmp_path)
    assert (read, before.rows) == ([], take(tmp_path).rows)


def test_a_changed_leaf_alone_is_read(tmp_path, read):
    edit_yaml(qna(tmp_path, FREEFORM), lambda value: value.update(task_description="Another"))
    take(tmp_path)
    (tmp_path / "taxonomy" / GROUNDED / "attribution.txt").write_text("Title of work: another")
    take(tmp_path)
    qna(tmp_path, GROUNDED).with_name("qna.yml").write_text("")
    take(tmp_path)
    assert read == [FREEFORM, GROUNDED, GROUNDED]


def test_a_leaf_that_is_not_usable_is_read_each_time_for_its_documents_may_be_there_again(tmp_path, read):
    qna(tmp_path, FOUNDATIONAL).write_text("version: 3\n")
    take(tmp_path)
    take(tmp_path)
    assert read == [FOUNDATIONAL, FOUNDATIONAL]


def test_documents_in_a_plain_folder_are_read_each_time(tmp_path, read):
    edit_yaml(qna(tmp_path, KNOWLEDGE), lambda value: value["document"].update(commit="worktree"))
    first = take(tmp_path).usable[KNOWLEDGE]
    (document,) = (tmp_path / "taxonomy" / "documents").glob("*.md")
    document.write_text(document.read_text() + "\nMore of it.\n")
    assert take(tmp_path).usable[KNOWLEDGE] != first
    assert read == [KNOWLEDGE, KNOWLEDGE]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 5},
        {"documents": DocumentSettings(max_megabytes=3)},
        {"budgets": PassageBudgets(lambda leaf: PassageBudget(50), "shorter")},
    ],
)
def test_settings_that_rows_depend_on_are_a_change_of_all(tmp_path, read, change):
    take(tmp_path, **change)
    assert sorted(read) == sorted([KNOWLEDGE, GROUNDED, FREEFORM, FOUNDATIONAL])


def test_a_frozen_leaf_that_is_gone_is_made_again(tmp_path, read):
    home = Home.open(tmp_path / "home")
    home.leaf_source(take(tmp_path).usable[FREEFORM]).unlink()
    assert home.leaf_source(take(tmp_path).usable[FREEFORM]).exists()
    assert read == [FREEFORM]
