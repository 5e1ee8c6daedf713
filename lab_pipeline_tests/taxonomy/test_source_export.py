"""What a snapshot of a git repository reads: the exported files, and the documents that leaves refer to."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from pathlib import Path

import pytest

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import digest, read_json, write_json
from lab_pipeline.taxonomy.snapshot import Snapshot, current_snapshot, load_snapshot, take_snapshot
from lab_pipeline.taxonomy.source import taxonomy_state
from lab_pipeline_tests.builders import KNOWLEDGE, edit_yaml, settings_for, write_skill, write_taxonomy
from lab_pipeline_tests.repositories import commit_files, git, write_files
from lab_pipeline_tests.taxonomy.sources import Source, files, serve_by_ssh, touch_qna

# the export


def test_the_export_holds_the_regular_files_of_the_commit_and_nothing_else(tmp_path):
    repository = tmp_path / "taxonomy"
    write_files(repository, {"a/b.md": "text", "run.sh": "x", ".gitattributes": "*.md export-ignore filter=evil\n"})
    (repository / "run.sh").chmod(0o755)
    (repository / "link").symlink_to("/etc/passwd")
    (repository / "folder").symlink_to("a")
    commit_files(tmp_path / "sub", {"s.md": "sub"})
    commit_files(repository, {})
    git(repository, *"-c protocol.file.allow=always submodule --quiet add ../sub sub".split())
    commit_files(repository, {})
    taxonomy = Source(tmp_path, repository, "main").open()
    assert files(taxonomy.folder).keys() == {"a/b.md", "run.sh", ".gitattributes", ".gitmodules"}
    assert not any(path.is_symlink() for path in taxonomy.folder.rglob("*"))
    assert taxonomy.folder.name == git(repository, "rev-parse", "HEAD^{tree}")


def tree_by_hand(repository: Path, entries: list[tuple[str, bytes, str]]) -> str:
    """Write a tree object that git would not make, of (mode, name, id) entries; returns its id."""
    import zlib

    body = b"".join(mode.encode() + b" " + name + b"\0" + bytes.fromhex(name_id) for mode, name, name_id in entries)
    raw = b"tree %d\0%s" % (len(body), body)
    tree = hashlib.sha1(raw).hexdigest()
    path = repository / ".git/objects" / tree[:2] / tree[2:]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(zlib.compress(raw))
    return tree


def test_entries_of_a_hostile_tree_stay_inside(tmp_path):
    repository = tmp_path / "taxonomy"
    commit_files(repository, {"a.md": "text"})
    blob = git(repository, "rev-parse", "HEAD:a.md")
    inner = tree_by_hand(repository, [("100644", b"escaped", blob)])
    names = [b"../escaped", b"/escaped", b"x/../../escaped", b"..", b".", b".git", b"x" * 300, b"a//b", b"a.md", b"a.md"]
    entries = [("100644", name, blob) for name in names]
    entries += [("40000", b"..", inner), ("40000", b".GIT", inner), ("40000", b"a.md", inner), ("100644", b"caf\xe9", blob)]
    commit = git(repository, "commit-tree", tree_by_hand(repository, entries), "-m", "hostile")
    git(repository, "update-ref", "refs/heads/hostile", commit)
    source = Source(tmp_path, repository, "hostile")
    assert files(source.open().folder) == {"a.md": "text", os.fsdecode(b"caf\xe9"): "text"}
    assert not list(tmp_path.rglob("escaped"))


def test_a_repository_with_more_than_may_be_is_refused(tmp_path):
    commit_files(tmp_path / "taxonomy", {"large.bin": b"x" * 4_100_000})
    source = Source(tmp_path, tmp_path / "taxonomy", "main", max_megabytes=1)
    with pytest.raises(LabError, match=r"4 MB of files .* \(4 times documents\.max_megabytes\)"):
        source.open()
    assert not any(path.is_dir() for path in source.home.taxonomies.iterdir())


def test_a_tree_that_stands_for_billions_of_files_is_refused(tmp_path):
    repository = tmp_path / "taxonomy"
    commit_files(repository, {"a.md": "text"})
    tree = git(repository, "rev-parse", "HEAD^{tree}")
    for _ in range(10):
        tree = tree_by_hand(repository, [("40000", b"%d" % n, tree) for n in range(10)])
    commit = git(repository, "commit-tree", tree, "-m", "bomb")
    git(repository, "update-ref", "refs/heads/bomb", commit)
    with pytest.raises(LabError, match="git ls-tree printed more than 16 MiB"):
        Source(tmp_path, repository, "bomb").open()


@pytest.mark.parametrize("what", ["a.md", "."])
def test_a_damaged_mirror_is_an_error_not_another_text(tmp_path, what):
    repository = tmp_path / "taxonomy"
    commit = commit_files(repository, {"a.md": "text", "b.md": "more"})
    source = Source(tmp_path, repository, "main")
    shutil.rmtree(source.open().folder)
    lost = git(repository, "rev-parse", f"HEAD:{what}".removesuffix("."))
    (source.home.taxonomy_mirror / "objects" / lost[:2] / lost[2:]).unlink()
    with pytest.raises(LabError, match="git"):
        source.open()
    assert git(repository, "rev-parse", "HEAD") == commit


def test_only_the_last_few_exports_are_kept_and_one_in_use_again_counts_as_new(tmp_path):
    repository = tmp_path / "taxonomy"
    source = Source(tmp_path, repository, "main")
    trees = []
    for number in range(4):
        commit_files(repository, {"a.md": str(number)})
        trees.append(source.open().folder.name)
        if number == 2:
            source.set(git(repository, "rev-parse", "HEAD~2"))
            assert source.open().folder.name == trees[0]
            source.set("main")
    kept = [path.name for path in source.home.taxonomies.iterdir() if path.is_dir()]
    assert sorted(kept) == sorted([trees[0], trees[2], trees[3]])


def test_snapshots_side_by_side_share_one_mirror(tmp_path, repository):
    source = Source(tmp_path, repository, "main")
    taken: list[Snapshot] = []
    threads = [threading.Thread(target=lambda: taken.append(source.take())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 4
    assert len({snapshot.id for snapshot in taken}) == 1
    assert len(taken[0].usable) == 4


# documents


def outside_leaf(root: Path, repo: str, **document: str) -> None:
    """Point the knowledge leaf of `root`/taxonomy at another document repository."""
    edit_yaml(
        root / "taxonomy" / KNOWLEDGE / "qna.yaml",
        lambda value: value["document"].update(repo=repo, patterns=["*.md"], **document),
    )


@pytest.mark.parametrize("allow_local", [None, True, False])
def test_documents_inside_of_a_taxonomy_read_from_git_are_part_of_it(tmp_path, repository, monkeypatch, allow_local):
    serve_by_ssh(tmp_path, monkeypatch)
    for address in (repository, f"me@host:{repository}"):
        source = Source(tmp_path, address, "main", allow_local=allow_local)
        assert KNOWLEDGE in source.take().usable
        shutil.rmtree(source.home.root)


@pytest.mark.parametrize(
    ("remote", "allow_local", "usable"),
    [(False, None, True), (False, False, False), (True, None, False), (True, True, True), (True, False, False)],
)
def test_local_documents_outside_are_for_local_taxonomies_unless_the_settings_say_so(
    tmp_path, repository, monkeypatch, remote, allow_local, usable
):
    serve_by_ssh(tmp_path, monkeypatch)
    (repository / "documents").rename(tmp_path / "outside")
    outside_leaf(tmp_path, str(tmp_path / "outside"))
    commit_files(repository, {})
    source = Source(tmp_path, f"me@host:{repository}" if remote else repository, "main", allow_local=allow_local)
    snapshot = source.take()
    assert (KNOWLEDGE in snapshot.usable) == usable
    assert usable or "allow_local" in snapshot.problems[KNOWLEDGE][0]
    assert snapshot.document_folders == ([str(tmp_path / "outside")] if usable else [])
    assert snapshot.state == source.state()


def test_a_relative_repository_that_the_export_lacks_is_looked_up_beside_the_local_one(tmp_path, repository):
    commit = commit_files(tmp_path / "docs", {"a.md": "A sentence about the islands."})
    outside_leaf(tmp_path, "../docs", commit=commit)
    commit_files(repository, {})
    git(tmp_path, "clone", "--quiet", "--bare", "taxonomy", "bare.git")
    git(repository, "bundle", "create", "--quiet", str(tmp_path / "file.bundle"), "--all")
    for address in ("taxonomy", "bare.git", "file.bundle"):
        source = Source(tmp_path, tmp_path / address, "main")
        (row,) = [row for row in source.take().rows if row["leaf"] == KNOWLEDGE]
        assert (row["usable"], row["document_commit"]) == (True, commit)
        shutil.rmtree(source.home.root)


def test_a_leaf_of_a_remote_taxonomy_cannot_name_a_folder_of_the_home(tmp_path, repository, monkeypatch):
    serve_by_ssh(tmp_path, monkeypatch)
    write_files(tmp_path, {"home/taxonomies/private/a.md": "secret"})
    outside_leaf(tmp_path, "../private")
    commit_files(repository, {})
    snapshot = Source(tmp_path, f"me@host:{repository}").take()
    assert "is refused" in snapshot.problems[KNOWLEDGE][0]


# snapshots on disk


def test_an_earlier_snapshot_is_loaded_by_its_id(tmp_path, repository):
    source = Source(tmp_path, repository, "main")
    one = source.take()
    touch_qna(repository, "task: x\n")
    commit_files(repository, {})
    two = source.take()
    assert one.id != two.id
    assert load_snapshot(source.home, one.id) == one
    assert load_snapshot(source.home, two.id) == two == current_snapshot(source.home)
    with pytest.raises(LabError, match="no taxonomy snapshot 0000"):
        load_snapshot(source.home, "0000")


def test_what_an_older_release_wrote_is_read(tmp_path):
    home = Home.open(tmp_path / "home")
    taxonomy = write_taxonomy(tmp_path / "taxonomy")
    settings = settings_for(taxonomy)
    one = take_snapshot(home, settings)
    write_skill(taxonomy, "compositional_skills/more")
    two = take_snapshot(home, settings)
    kept = read_json(home.current_snapshot)
    write_json(home.current_snapshot, {name: kept[name] for name in ("id", "taxonomy_commit", "taken_at")})
    for snapshot in (one, two):
        home.snapshot_facts(snapshot.id).unlink()
    read = current_snapshot(home)
    assert (read.id, read.rows, read.taken_at) == (two.id, two.rows, two.taken_at)
    assert (read.state, read.branch, read.notes, read.document_folders) == ("", "", [], [])
    assert load_snapshot(home, two.id) == read
    assert load_snapshot(home, one.id).rows == one.rows
    assert digest(load_snapshot(home, one.id).rows) == one.id
    assert taxonomy_state(home, settings) == two.state
    assert take_snapshot(home, settings).notes == []
