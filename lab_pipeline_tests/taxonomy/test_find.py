from __future__ import annotations

from lab_pipeline.core.home import Home
from lab_pipeline.taxonomy.find import find_leaves, find_misnamed
from lab_pipeline.taxonomy.leaf import read_leaf
from lab_pipeline.taxonomy.snapshot import take_snapshot
from lab_pipeline_tests.builders import settings_for, write_skill

SKILL = "compositional_skills/writing"


def touch(root, *files):
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()


def test_misnamed_and_misplaced_files_are_found_with_their_right_names(tmp_path):
    touch(
        tmp_path,
        "knowledge/a/qna.yml",
        "knowledge/b/QNA.yaml",
        "Knowledge/c/qna.yaml",
        "Compositional-Skills/d/Qna.YML",
        "docs/e/qna.yaml",
        "qna.yaml",
        ".github/qna.yaml",
        "knowledge/.hidden/qna.yml",
        "knowledge/f/qna.yaml",
        "knowledge/f/notes.yaml",
    )
    elsewhere = "leaves are below knowledge/, compositional_skills/, foundational_skills/; move it there"
    found = {
        key: [(each.file, each.severity, each.rule, each.message.removeprefix("nobody reads this file; "))]
        for key, (each,) in find_misnamed(tmp_path).items()
    }
    assert found == {
        "knowledge/a": [("knowledge/a/qna.yml", "error", "name-extension", "rename it to knowledge/a/qna.yaml")],
        "knowledge/b": [("knowledge/b/QNA.yaml", "error", "name-case", "rename it to knowledge/b/qna.yaml")],
        "Knowledge/c": [("Knowledge/c/qna.yaml", "error", "name-case", "rename it to knowledge/c/qna.yaml")],
        "Compositional-Skills/d": [
            ("Compositional-Skills/d/Qna.YML", "error", "name-extension", "rename it to compositional_skills/d/qna.yaml")
        ],
        "docs/e": [("docs/e/qna.yaml", "error", "outside-branches", elsewhere)],
        ".": [("qna.yaml", "error", "outside-branches", elsewhere)],
    }
    assert find_leaves(tmp_path) == ["knowledge/f"]


def test_a_misnamed_file_beside_a_leaf_is_only_warned_of(tmp_path):
    write_skill(tmp_path, SKILL)
    touch(tmp_path, f"{SKILL}/qna.yml")
    misnamed = find_misnamed(tmp_path)
    reading = read_leaf(tmp_path, SKILL, misnamed[SKILL])
    assert reading.usable
    assert [(each.file, each.severity) for each in reading.problems] == [(f"{SKILL}/qna.yml", "warning")]


def test_a_misnamed_leaf_is_a_row_of_the_snapshot(tmp_path):
    root = tmp_path / "taxonomy"
    write_skill(root, SKILL)
    touch(root, "knowledge/a/qna.yml")
    snapshot = take_snapshot(Home.open(tmp_path / "home"), settings_for(root))
    assert [(row["leaf"], row["usable"]) for row in snapshot.rows] == [(SKILL, True), ("knowledge/a", False)]
    assert snapshot.problems["knowledge/a"] == [
        "knowledge/a/qna.yml:1: nobody reads this file; rename it to knowledge/a/qna.yaml"
    ]
