from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from lab_pipeline.core.errors import LabError
from lab_pipeline.taxonomy.changes import Changes, find_changes
from lab_pipeline_tests.builders import FREEFORM, GROUNDED, KNOWLEDGE, edit_yaml, write_knowledge, write_skill
from lab_pipeline_tests.repositories import AUTHOR, commit_files, git, write_files
from lab_pipeline_tests.taxonomy.sources import touch_qna

MORE = "compositional_skills/more"


def changes(taxonomy: Path, ref: str = "base") -> tuple[list[str], list[str], list[str]]:
    """Added, modified and removed."""
    found = find_changes(taxonomy, ref)
    return found.added, found.modified, found.removed


def refusal(taxonomy: Path, ref: str = "base") -> str:
    with pytest.raises(LabError) as caught:
        find_changes(taxonomy, ref)
    return str(caught.value)


@pytest.fixture
def taxonomy(repository: Path) -> Path:
    """A taxonomy on branch main, whose branch base is at the same commit."""
    git(repository, "branch", "base")
    return repository


def test_a_folder_that_is_no_taxonomy_and_a_remote_branch_not_fetched_are_said(taxonomy):
    assert "no leaf, neither now nor at 'base'" in refusal(taxonomy / "knowledge")
    assert refusal(taxonomy, "origin/main").endswith("no branch, tag or commit 'origin/main'; run `git fetch` first")


def test_nothing_changed(taxonomy):
    (taxonomy / FREEFORM / "qna.yaml").touch()
    assert find_changes(taxonomy, "base") == Changes(git(taxonomy, "rev-parse", "HEAD"), [], [], [])


@pytest.mark.parametrize("how", ["commit", "stage", "leave"])
def test_leaves_are_added_modified_removed_and_renamed(taxonomy, how):
    write_skill(taxonomy, MORE)
    touch_qna(taxonomy)
    (taxonomy / GROUNDED / "qna.yaml").unlink()
    (taxonomy / KNOWLEDGE).rename(taxonomy / "knowledge/renamed")
    if how != "leave":
        git(taxonomy, "add", "--all")
    if how == "commit":
        git(taxonomy, "commit", "--quiet", "--message", "x")
    assert changes(taxonomy) == ([MORE, "knowledge/renamed"], [FREEFORM], [GROUNDED, KNOWLEDGE])


def test_a_leaf_is_modified_through_its_document_commit_or_attribution(taxonomy):
    edit_yaml(taxonomy / KNOWLEDGE / "qna.yaml", lambda value: value["document"].update(commit="0" * 40))
    write_files(taxonomy, {f"{GROUNDED}/attribution.txt": "other", f"{FREEFORM}/notes.md": "x", "README.md": "x"})
    assert changes(taxonomy) == ([], [GROUNDED, KNOWLEDGE], [])


def test_a_leaf_is_modified_through_a_document_in_the_taxonomy_that_its_pattern_names(taxonomy):
    write_knowledge(taxonomy, "knowledge/other", "documents")
    commit_files(taxonomy, {})
    git(taxonomy, "branch", "--force", "base")
    for change in ("edit", "remove"):
        document = taxonomy / "documents" / f"{KNOWLEDGE.replace('/', '-')}.md"
        if change == "edit":
            document.write_text(document.read_text() + "\nMore.\n")
        else:
            document.unlink()
        write_files(taxonomy, {"documents/unrelated.md": "x", "README.md": "x"})
        assert changes(taxonomy) == ([], [KNOWLEDGE], [])


def test_what_the_base_gained_since_does_not_count(taxonomy):
    git(taxonomy, "checkout", "--quiet", "base")
    write_skill(taxonomy, "compositional_skills/of_others")
    commit_files(taxonomy, {})
    git(taxonomy, "checkout", "--quiet", "main")
    write_skill(taxonomy, MORE)
    commit_files(taxonomy, {})
    assert changes(taxonomy) == ([MORE], [], [])
    git(taxonomy, "merge", "--quiet", "--no-edit", "base")
    assert changes(taxonomy) == ([MORE], [], [])


def test_a_conflict_is_a_modification(taxonomy):
    for branch in ("base", "main"):
        git(taxonomy, "checkout", "--quiet", branch)
        touch_qna(taxonomy, f"# {branch}\n")
        commit_files(taxonomy, {})
    with pytest.raises(subprocess.CalledProcessError):
        git(taxonomy, "merge", "--quiet", "base")
    assert changes(taxonomy) == ([], [FREEFORM], [])


def test_ignored_files_do_not_count(taxonomy):
    write_files(taxonomy, {".gitignore": "drafts/\n"})
    write_skill(taxonomy, "compositional_skills/drafts/one")
    assert changes(taxonomy) == ([], [], [])


def test_a_file_taken_out_of_the_index_counts_by_its_content(taxonomy):
    git(taxonomy, "rm", "--quiet", "--cached", "-r", FREEFORM)
    assert changes(taxonomy) == ([], [], [])
    touch_qna(taxonomy)
    assert changes(taxonomy) == ([], [FREEFORM], [])
    write_files(taxonomy, {".gitignore": FREEFORM})
    assert changes(taxonomy) == ([], [], [FREEFORM])
    git(taxonomy, "rm", "--quiet", "--cached", "-r", GROUNDED)
    (taxonomy / GROUNDED / "qna.yaml").rename(taxonomy / "qna.yaml")
    (taxonomy / GROUNDED / "qna.yaml").symlink_to(taxonomy / "qna.yaml")
    assert changes(taxonomy) == ([], [], [GROUNDED, FREEFORM])


def test_a_symbolic_link_is_no_leaf(taxonomy):
    qna = taxonomy / FREEFORM / "qna.yaml"
    qna.rename(taxonomy / "elsewhere.yaml")
    qna.symlink_to(taxonomy / "elsewhere.yaml")
    (taxonomy / "compositional_skills/link").symlink_to(taxonomy / GROUNDED)
    assert changes(taxonomy) == ([], [], [FREEFORM])


def test_leaves_outside_of_a_sparse_checkout_count_as_they_are_committed(taxonomy):
    touch_qna(taxonomy)
    write_skill(taxonomy, MORE)
    git(taxonomy, "rm", "--quiet", "-r", GROUNDED)
    commit_files(taxonomy, {})
    git(taxonomy, "sparse-checkout", "set", "knowledge")
    assert not (taxonomy / FREEFORM).exists()
    assert changes(taxonomy) == ([MORE], [FREEFORM], [GROUNDED])


def test_a_conflict_that_somebody_solved_by_removal_is_one(taxonomy):
    test_a_conflict_is_a_modification(taxonomy)
    (taxonomy / FREEFORM / "qna.yaml").unlink()
    assert changes(taxonomy) == ([], [], [FREEFORM])


def test_a_taxonomy_in_a_folder_of_a_repository_is_compared_by_its_own_keys(tmp_path, taxonomy):
    (tmp_path / "whole").mkdir()
    taxonomy.rename(tmp_path / "whole/lab")
    (tmp_path / "whole/lab/.git").rename(tmp_path / "whole/.git")
    commit_files(tmp_path / "whole", {})
    git(tmp_path / "whole", "branch", "--force", "base")
    touch_qna(tmp_path / "whole/lab")
    write_skill(tmp_path / "whole", MORE)
    assert changes(tmp_path / "whole/lab") == ([], [FREEFORM], [])


def test_settings_and_odd_names_do_not_matter(taxonomy):
    for setting in (
        "diff.renames=copies",
        "color.ui=always",
        "diff.external=false",
        "diff.relative=true",
        "diff.noprefix=true",
    ):
        git(taxonomy, "config", *setting.split("="))
    write_skill(taxonomy, 'compositional_skills/日本 "x"')
    (taxonomy / FREEFORM).rename(taxonomy / os.fsdecode(b"compositional_skills/caf\xe9"))
    assert changes(taxonomy) == (["compositional_skills/caf\ufffd", 'compositional_skills/日本 "x"'], [], [FREEFORM])


def test_a_shallow_clone_that_lacks_the_base_says_what_to_do(tmp_path, taxonomy):
    touch_qna(taxonomy)
    commit_files(taxonomy, {})
    git(tmp_path, "clone", "--quiet", "--depth", "1", "--no-single-branch", f"file://{taxonomy}", "shallow")
    shallow = tmp_path / "shallow"
    assert "share no commit; this clone is shallow: run `git fetch --unshallow`" in refusal(shallow, "origin/base")
    assert "no branch, tag or commit 'base'; this clone is shallow" in refusal(shallow)
    git(shallow, "fetch", "--quiet", "--unshallow")
    assert changes(shallow, "origin/base") == ([], [FREEFORM], [])


@pytest.mark.parametrize("ref", ["none", "--help", "-x", "", "HEAD:README.md", "ma*"])
def test_what_is_no_ref_is_named(taxonomy, ref):
    assert refusal(taxonomy, ref) == f"{taxonomy}: no branch, tag or commit {ref!r}"


def test_a_place_without_history_is_named(tmp_path, taxonomy):
    (tmp_path / "plain").mkdir()
    assert f"{tmp_path / 'plain'}: not in a git repository" in refusal(tmp_path / "plain")
    assert refusal(tmp_path / "none") == f"{tmp_path / 'none'}: no such folder"
    git(tmp_path, "clone", "--quiet", "--bare", "taxonomy", "bare.git")
    assert "a bare repository has no work tree" in refusal(tmp_path / "bare.git")
    git(taxonomy, "checkout", "--quiet", "--orphan", "new")
    assert "HEAD has no commit yet" in refusal(taxonomy)
    git(taxonomy, "commit", "--quiet", "--message", "x")
    assert refusal(taxonomy) == f"{taxonomy}: 'base' and HEAD share no commit"


# random histories


def answer_of_git(taxonomy: Path) -> tuple[list[str], list[str], list[str]]:
    """Added, modified and removed leaves by trees alone: that of the merge base, and that of all that `git add` would take."""
    base = git(taxonomy, "merge-base", "base", "HEAD")
    index = {"GIT_INDEX_FILE": str(taxonomy.parent / "index")}

    def run(*arguments: str) -> str:
        environment = {**os.environ, **index}
        return subprocess.run(
            ["git", *arguments], cwd=taxonomy, env=environment, check=True, capture_output=True, text=True
        ).stdout

    run("read-tree", "HEAD")
    run("add", "--all")
    trees = [{}, {}]
    for tree, name in zip(trees, (base, run("write-tree").strip()), strict=True):
        for line in run("ls-tree", "-r", name).splitlines():
            head, _, path = line.partition("\t")
            folder, _, file = path.rpartition("/")
            if file in ("qna.yaml", "attribution.txt"):
                tree.setdefault(folder, {})[file] = head
    before, after = ({key: files for key, files in tree.items() if "qna.yaml" in files} for tree in trees)
    modified = sorted(key for key in before.keys() & after.keys() if before[key] != after[key])
    return sorted(after.keys() - before.keys()), modified, sorted(before.keys() - after.keys())


GIT_ACTIONS = ("stage", "unstage", "commit", "branch", "checkout", "merge", "reset", "stash")


def act(taxonomy: Path, choice: random.Random) -> None:
    """Do one thing that people do in a work tree; what git refuses, such as a checkout over changes, does not happen."""
    keys = [f"{branch}/{name}" for branch in ("knowledge", "compositional_skills/a", "foundational_skills") for name in "xyz"]
    one, other = (taxonomy / choice.choice(keys) for _ in range(2))
    action = choice.choice(["write", "write", "attribution", "remove", "rename", *GIT_ACTIONS])
    if action == "write":
        write_files(one, {"qna.yaml": choice.choice("123")})
    elif action == "attribution":
        write_files(one, {"attribution.txt": choice.choice("123")})
    elif action == "remove":
        (one / choice.choice(["qna.yaml", "attribution.txt"])).unlink(missing_ok=True)
    elif action == "rename" and one.exists() and not other.exists():
        other.parent.mkdir(parents=True, exist_ok=True)
        one.rename(other)
    commands = {
        "stage": [["add", str(one.relative_to(taxonomy))]],
        "unstage": [["rm", "--cached", "-r", "--quiet", str(one.relative_to(taxonomy))]],
        "commit": [["add", "--all"], ["commit", "--quiet", "--message", "x"]],
        "branch": [["checkout", "--quiet", "-b", f"b{choice.random()}"]],
        "checkout": [["checkout", "--quiet", choice.choice(["base", "main"])]],
        "merge": [["merge", "--quiet", "--no-edit", *choice.choice([["base"], ["main"], ["-s", "ours", "base"]])]],
        "reset": [["reset", "--quiet", choice.choice(["--soft", "--mixed"]), "HEAD~1"]],
        "stash": [["stash", "--quiet"], ["stash", "pop", "--quiet"]],
    }
    for command in commands.get(action, []):
        subprocess.run(["git", *command], cwd=taxonomy, env={**os.environ, **AUTHOR}, capture_output=True)


@pytest.mark.parametrize("seed", range(4))
def test_after_any_actions_the_answer_is_that_of_git(tmp_path, seed):
    choice = random.Random(seed)
    taxonomy = tmp_path / "taxonomy"
    commit_files(taxonomy, {"knowledge/x/qna.yaml": "1", "compositional_skills/a/y/qna.yaml": "1", ".gitignore": "ignored\n"})
    git(taxonomy, "branch", "base")
    seen = [0, 0, 0]
    for _ in range(40):
        act(taxonomy, choice)
        found = changes(taxonomy)
        assert found == answer_of_git(taxonomy)
        seen = [count + len(keys) for count, keys in zip(seen, found, strict=True)]
    assert all(seen)
