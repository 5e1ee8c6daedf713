"""Taxonomies and documents in git repositories that are not whole or not in the usual format."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from lab_pipeline.config.settings import DocumentSettings
from lab_pipeline.core.errors import LabError
from lab_pipeline.taxonomy.documents.repository import File, fetch_files
from lab_pipeline.taxonomy.leaf import DocumentReference
from lab_pipeline_tests.builders import FREEFORM, KNOWLEDGE, edit_yaml, write_skill, write_taxonomy
from lab_pipeline_tests.repositories import commit_files, git, write_files
from lab_pipeline_tests.taxonomy.sources import Source, serve_by_ssh, touch_qna

MORE = "compositional_skills/more"


def documents(root: Path, repo: str | Path, commit: str, pattern: str = "**/*.md") -> list[File]:
    """What a leaf of a taxonomy at `root`/taxonomy gets."""
    (root / "taxonomy").mkdir(exist_ok=True)
    reference = DocumentReference(str(repo), commit, (pattern,), 1)
    return fetch_files(reference, root / "taxonomy", root / "mirrors", DocumentSettings())[0]


def refusal(root: Path, repo: str | Path, commit: str) -> str:
    with pytest.raises(LabError) as caught:
        documents(root, repo, commit)
    return str(caught.value)


def clone(origin: Path, to: Path, *options: str) -> Path:
    """Clone as over a network, where depth and filters hold."""
    git(origin, "config", "uploadpack.allowFilter", "true")
    git(to.parent, "clone", "--quiet", *options, f"file://{origin}", to.name)
    return to


# SHA-256


@pytest.fixture
def sha256(tmp_path: Path) -> Path:
    taxonomy = write_taxonomy(tmp_path / "taxonomy")
    git(taxonomy, "init", "--quiet", "--initial-branch", "main", "--object-format", "sha256")
    commit_files(taxonomy, {})
    return taxonomy


@pytest.mark.parametrize("way", ["work tree", "bundle", "ssh"])
def test_a_taxonomy_in_sha256_is_read_and_its_rewritten_history_said(tmp_path, sha256, monkeypatch, way):
    address = {"work tree": sha256, "bundle": tmp_path / "file.bundle", "ssh": f"me@host:{sha256}"}[way]
    serve_by_ssh(tmp_path, monkeypatch)
    source = Source(tmp_path, address, "main")
    for expected, change in (([], None), ([], "commit"), (["the history of main was rewritten"], "amend")):
        if change:
            touch_qna(sha256)
            git(sha256, "commit", "--quiet", "--all", "--message", "x", *(["--amend"] if change == "amend" else []))
        git(sha256, "bundle", "create", "--quiet", str(tmp_path / "file.bundle"), "--all")
        snapshot = source.take()
        assert snapshot.taxonomy_commit == git(sha256, "rev-parse", "HEAD") and len(snapshot.taxonomy_commit) == 64
        assert snapshot.state == source.state() and len(snapshot.usable) == 4
        assert [note.partition(" (")[0] for note in snapshot.notes] == expected


def test_a_folder_in_sha256_is_read(tmp_path, sha256):
    assert Source(tmp_path, sha256).take().taxonomy_commit == git(sha256, "rev-parse", "HEAD")


def test_documents_in_sha256_are_read(tmp_path):
    (tmp_path / "docs").mkdir()
    git(tmp_path / "docs", "init", "--quiet", "--object-format", "sha256")
    commit = commit_files(tmp_path / "docs", {"a.md": "text"})
    assert [document.commit for document in documents(tmp_path, "../docs", commit[:9])] == [commit]


def test_a_repository_that_changed_its_format_is_named_with_its_mirror(tmp_path):
    docs = tmp_path / "docs"
    documents(tmp_path, "../docs", commit_files(docs, {"a.md": "text"}))
    shutil.rmtree(docs)
    docs.mkdir()
    git(docs, "init", "--quiet", "--object-format", "sha256")
    said = refusal(tmp_path, "../docs", commit_files(docs, {"a.md": "text"}))
    assert "has another object format than" in said and str(tmp_path / "mirrors") in said


# partial clones and sparse checkouts


def edited(taxonomy: Path) -> str:
    """Give the history of the taxonomy content that only an earlier commit has; return that commit."""
    before = git(taxonomy, "rev-parse", "HEAD")
    touch_qna(taxonomy)
    commit_files(taxonomy, {})
    return before


def test_a_partial_clone_is_read_at_a_ref_and_as_a_folder(tmp_path, repository):
    edited(repository)
    partial = clone(repository, tmp_path / "partial", "--filter=blob:none")
    source = Source(tmp_path, partial, "main")
    one = source.take()
    assert (one.taxonomy_commit, len(one.usable), one.notes) == (git(repository, "rev-parse", "HEAD"), 4, [])
    write_skill(repository, MORE)
    commit_files(repository, {})
    git(partial, "pull", "--quiet")
    two = source.take()
    assert two.usable.keys() - one.usable.keys() == {MORE} and two.notes == []
    assert Source(tmp_path / "other", partial).take().usable == two.usable


def test_a_commit_that_a_partial_clone_has_no_content_of_is_named(tmp_path, repository):
    before = edited(repository)
    partial = clone(repository, tmp_path / "partial", "--filter=blob:none")
    source = Source(tmp_path, partial, before)
    with pytest.raises(LabError) as caught:
        source.take()
    said = str(caught.value)
    assert f"{partial} is a partial clone that lacks the content of '{FREEFORM}/qna.yaml'" in said and "ssh" not in said
    command = said.partition("`")[2].partition("`")[0]
    subprocess.run(command, shell=True, check=True, capture_output=True)
    assert len(source.take().usable) == 4


def test_documents_of_a_partial_clone_are_read_where_it_has_their_content(tmp_path):
    docs = tmp_path / "docs"
    old = commit_files(docs, {"in/a.md": "old", "out/b.md": "not here"})
    commit = commit_files(docs, {"in/a.md": "new"})
    partial = clone(docs, tmp_path / "partial", "--filter=blob:none", "--sparse")
    git(partial, "sparse-checkout", "set", "in")
    assert [file.raw for file in documents(tmp_path, partial, commit, "in/*.md")] == [b"new"]
    assert f"{partial} is a partial clone that lacks the content of 'out/b.md'" in refusal(tmp_path, partial, commit)
    assert "lacks the content of 'in/a.md'" in refusal(tmp_path, partial, old)


@pytest.mark.parametrize("banner", ["", "seq 1 400 >&2; "], ids=["alone", "after other words"])
def test_a_partial_clone_on_another_machine_is_named(tmp_path, repository, monkeypatch, banner):
    edited(repository)
    partial = clone(repository, tmp_path / "partial", "--filter=blob:none")
    serve_by_ssh(tmp_path, monkeypatch, f'{banner}for last; do :; done; exec sh -c "$last"')
    with pytest.raises(LabError, match="is a partial clone that lacks files; name a complete clone"):
        Source(tmp_path, f"me@host:{partial}", "main").take()


def test_a_sparse_checkout_is_read_whole_at_a_ref_and_as_a_folder_says_what_it_leaves_out(tmp_path, repository):
    sparse = clone(repository, tmp_path / "sparse", "--sparse")
    git(sparse, "sparse-checkout", "set", "knowledge", "documents")
    assert len(Source(tmp_path, sparse, "main").take().usable) == 4
    snapshot = Source(tmp_path / "other", sparse).take()
    assert list(snapshot.usable) == [KNOWLEDGE]
    assert snapshot.notes == ["the sparse checkout leaves out 3 of 4 leaves (`git sparse-checkout disable` brings all)"]


# shallow clones


@pytest.mark.parametrize("ref", [None, "main"])
@pytest.mark.parametrize("update", [["pull", "--quiet"], ["pull", "--quiet", "--depth", "1", "--rebase"]])
def test_ordinary_commits_in_a_shallow_clone_are_no_rewritten_history(tmp_path, repository, ref, update):
    edited(repository)
    shallow = clone(repository, tmp_path / "shallow", "--depth", "1")
    source = Source(tmp_path, shallow, ref)
    assert source.take().notes == []
    for _ in range(3):
        edited(repository)
    git(shallow, *update)
    snapshot = source.take()
    assert snapshot.notes == []
    assert snapshot.taxonomy_commit == git(repository, "rev-parse", "HEAD")


def test_documents_of_a_shallow_clone_are_read(tmp_path):
    commit_files(tmp_path / "docs", {"a.md": "old"})
    commit = commit_files(tmp_path / "docs", {"a.md": "new"})
    shallow = clone(tmp_path / "docs", tmp_path / "shallow", "--depth", "1")
    assert [file.raw for file in documents(tmp_path, shallow, commit)] == [b"new"]


# names that are no commit ids


@pytest.mark.parametrize(
    ("name", "kind"), [("main", "branch"), ("feature/deadbeef", "branch"), ("deadbeef", "branch"), ("v1", "tag")]
)
def test_a_branch_or_tag_as_commit_of_documents_is_refused_with_the_id_that_it_means(tmp_path, name, kind):
    docs = tmp_path / "docs"
    commit = commit_files(docs, {"a.md": "text"})
    git(docs, "branch", "deadbeef")
    git(docs, "branch", "feature/deadbeef")
    git(docs, "tag", "--annotate", "v1", "--message", "v1")
    said = refusal(tmp_path, "../docs", name)
    assert said == f"{name} is a {kind} of {docs}, which may move; write the commit's id, now {commit}"
    assert documents(tmp_path, "../docs", commit)
    later = commit_files(docs, {"a.md": "more"})
    git(docs, "branch", "--force", "deadbeef")
    assert (later in refusal(tmp_path, "../docs", name)) == (name in ("main", "deadbeef"))


def test_a_leaf_that_names_a_branch_says_so_in_its_line(tmp_path, repository):
    commit = commit_files(tmp_path / "docs", {"a.md": "Some text stands here."})
    edit_yaml(repository / KNOWLEDGE / "qna.yaml", lambda value: value["document"].update(repo="../docs", commit="main"))
    (problem,) = Source(tmp_path, repository).take().problems[KNOWLEDGE]
    assert problem.startswith(f"{KNOWLEDGE}/qna.yaml:") and f"write the commit's id, now {commit}" in problem


@pytest.mark.parametrize("name", ["mirror/heads/main", "refs/mirror/heads/main", "HEAD~1", "main^{commit}", "--all", "", "ma*"])
def test_what_names_a_commit_in_other_ways_is_no_commit(tmp_path, name):
    commit = commit_files(tmp_path / "docs", {"a.md": "text"})
    documents(tmp_path, "../docs", commit)
    assert f"has no commit {name}" in refusal(tmp_path, "../docs", name)


def test_an_abbreviated_id_is_read_while_one_commit_begins_with_it(tmp_path):
    """Among a thousand commits, several ids begin with the same four characters."""
    docs = tmp_path / "docs"
    commit_files(docs, {"a.md": "text"})
    stream = "".join(
        f"commit refs/heads/main\ncommitter a <a@example.org> {n} +0000\ndata 0\nM 644 inline a.md\ndata 1\na\n"
        for n in range(1000)
    )
    subprocess.run(["git", "fast-import", "--quiet", "--force"], cwd=docs, input=stream.encode(), check=True)
    ids = git(docs, "rev-list", "main").splitlines()
    beginnings = [commit[:4] for commit in ids]
    once = next(start for start in beginnings if beginnings.count(start) == 1)
    twice = next(start for start in beginnings if beginnings.count(start) > 1)
    assert [document.commit[:4] for document in documents(tmp_path, "../docs", once)] == [once]
    said = refusal(tmp_path, "../docs", twice)
    assert said.startswith(f"{twice} is the beginning of several commit ids; write one of them in full: ")
    assert all(commit in said for commit in ids if commit.startswith(twice))


# file: addresses


def test_a_file_address_is_refused_with_the_path_to_write(tmp_path):
    write_files(tmp_path, {"my docs/a.md": "text"})
    said = refusal(tmp_path, f"file://{tmp_path}/my%20docs", "worktree")
    assert said.endswith(f"uses a transport that is not allowed; use https, ssh, or a path, here {tmp_path}/my docs")
