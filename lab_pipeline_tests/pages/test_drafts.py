from __future__ import annotations

import subprocess

import pytest

from lab_pipeline.core.errors import LabError
from lab_pipeline.pages.drafts import KNOWLEDGE as NEW_KNOWLEDGE
from lab_pipeline.pages.drafts import Draft, as_patch, draft_passages, key_problem, new_draft, present_draft
from lab_pipeline_tests.builders import FREEFORM, KNOWLEDGE, write_skill


def test_a_draft_of_the_taxonomys_leaf_is_found_as_usable_as_the_leaf(lab):
    draft = present_draft(lab.home, lab.settings, KNOWLEDGE)
    reading = draft.check()
    assert reading.usable and reading.leaf and len(reading.leaf.seeds) == 15 and reading.problems == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("version: 3\na: b\n", "version: 3\r\na: c\r\n\r\nx: \f\u2028y\r\n"),
        ("a: b", "a: b\nc: d"),
        ("a: b\n", "a: c"),
        ("", "a: b\n"),
        ("a: b\n", ""),
        ("one\r\ntwo\r\n", "one\ntwo\n"),
        (" sp ace \n", "-- x\n+++ y\n"),
    ],
)
def test_git_applies_the_patch_and_the_file_is_the_draft(tmp_path, before, after):
    key, attribution = "compositional_skills/a b/ü", "x\n"
    root = tmp_path / "taxonomy"
    (root / key).mkdir(parents=True)
    (root / key / "attribution.txt").write_bytes(attribution.encode())
    if before:
        (root / key / "qna.yaml").write_bytes(before.encode())
    draft = Draft(key, after, attribution)
    patch = as_patch(Draft(key, before, attribution), draft)
    for arguments in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", *arguments], cwd=root, check=True)
    subprocess.run(["git", "apply", "-"], cwd=root, check=True, input=patch.encode())
    written = dict(draft.files())["qna.yaml"]
    assert "\r" not in written and written.endswith("\n") is bool(written)
    file = root / key / "qna.yaml"
    assert (file.read_bytes().decode() if file.exists() else "") == written


def test_nothing_that_differs_is_no_patch(lab):
    draft = present_draft(lab.home, lab.settings, FREEFORM)
    assert as_patch(draft, draft) == ""


@pytest.mark.parametrize(
    "key",
    [
        "",
        "knowledge",
        "other/x",
        "knowledge/",
        "knowledge//a",
        "knowledge/../../etc",
        "knowledge/./a",
        "knowledge/a\n",
        "knowledge/ a",
        "knowledge/a\\b",
    ],
)
def test_a_key_under_which_no_leaf_can_stand_is_a_problem_and_reads_nothing(lab, key):
    assert key_problem(key)
    with pytest.raises(LabError, match="key"):
        present_draft(lab.home, lab.settings, key)
    assert not Draft(key, "", "").check().usable


def test_a_link_out_of_the_taxonomy_is_not_read(lab, tmp_path):
    outside = write_skill(tmp_path / "outside", "leaf")
    (lab.taxonomy / FREEFORM / "qna.yaml").unlink()
    (lab.taxonomy / FREEFORM / "qna.yaml").symlink_to(outside)
    (lab.taxonomy / "knowledge" / "linked").symlink_to(outside.parent)
    assert present_draft(lab.home, lab.settings, FREEFORM).qna == ""
    assert present_draft(lab.home, lab.settings, "knowledge/linked").qna == ""


def test_the_passages_of_a_draft_are_those_of_its_documents_in_the_taxonomy(lab):
    reading = present_draft(lab.home, lab.settings, KNOWLEDGE).check()
    found, unread = draft_passages(lab.home, lab.settings, reading)
    assert len(found) == 5 and unread == ""


def test_documents_outside_the_taxonomy_are_not_shown_to_who_writes_here(lab, tmp_path):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "keys.md").write_text("# Keys\n\nThe key is 1234.\n")
    draft = present_draft(lab.home, lab.settings, KNOWLEDGE)
    for repo in (str(tmp_path / "secret"), "../secret"):
        reading = Draft(KNOWLEDGE, draft.qna.replace("repo: documents", f"repo: {repo}"), draft.attribution).check()
        assert reading.usable
        found, unread = draft_passages(lab.home, lab.settings, reading)
        assert found == [] and "is outside the taxonomy" in unread


def test_new_drafts_are_well_formed_and_say_what_is_missing():
    for kind in ("skill", "knowledge"):
        draft = new_draft(kind)
        reading = draft.check()
        assert not reading.usable and all(problem.line >= 1 for problem in reading.problems)
        assert not any(problem.rule.startswith("yaml") for problem in reading.problems)
    assert new_draft("knowledge").qna == NEW_KNOWLEDGE
