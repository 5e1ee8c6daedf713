from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from lab_pipeline.errors import LabError
from lab_pipeline.settings import DocumentSettings, Settings, TaxonomySettings
from lab_pipeline.storage import Home, digest, read_json, write_json
from lab_pipeline.taxonomy.snapshot import Snapshot, current_snapshot, load_snapshot, take_snapshot
from lab_pipeline.taxonomy.source import Taxonomy, open_taxonomy, taxonomy_state
from lab_pipeline_tests.builders import (
    FREEFORM,
    KNOWLEDGE,
    edit_yaml,
    settings_for,
    write_knowledge,
    write_skill,
    write_taxonomy,
)
from lab_pipeline_tests.repositories import commit_files, git, write_files

MORE = "compositional_skills/more"


class Source:
    """A taxonomy at `root`/taxonomy as some address and ref name it, with a home of its own."""

    def __init__(self, root: Path, address: str | Path, ref: str | None = None, **documents) -> None:
        self.root = root
        self.home = Home.open(root / "home")
        self.address = str(address)
        self.documents = DocumentSettings(**documents)
        self.set(ref)

    def set(self, ref: str | None) -> None:
        """Give another ref in the settings."""
        taxonomy = TaxonomySettings(path=self.address, ref=ref)
        self.settings = Settings(taxonomy=taxonomy, documents=self.documents)

    def state(self) -> str:
        return taxonomy_state(self.home, self.settings)

    def open(self) -> Taxonomy:
        return open_taxonomy(self.home, self.settings)

    def take(self) -> Snapshot:
        return take_snapshot(self.home, self.settings)

    def refusal(self) -> str:
        """What both state and snapshot say instead of giving a result."""
        with pytest.raises(LabError) as of_state:
            self.state()
        with pytest.raises(LabError) as of_snapshot:
            self.take()
        assert str(of_state.value) == str(of_snapshot.value)
        return str(of_state.value)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A taxonomy in a git repository, whose documents stand in it."""
    commit_files(write_taxonomy(tmp_path / "taxonomy"), {})
    return tmp_path / "taxonomy"


def serve_by_ssh(folder: Path, patch: pytest.MonkeyPatch, script: str = 'for last; do :; done; exec sh -c "$last"') -> None:
    """Put an `ssh` first on the path that runs the asked command on this machine, or does what `script` says."""
    write_files(folder, {"bin/ssh": f"#!/bin/sh\n{script}\n"})
    (folder / "bin/ssh").chmod(0o755)
    patch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def touch_qna(taxonomy: Path, text: str = "# edited\n") -> None:
    path = taxonomy / FREEFORM / "qna.yaml"
    path.write_text(path.read_text() + text)


# a folder


def test_the_state_of_an_unchanged_folder_is_that_of_its_snapshot(tmp_path):
    source = Source(tmp_path, write_taxonomy(tmp_path / "taxonomy"))
    before = source.state()
    assert source.take().state == source.state() == before


@pytest.mark.parametrize("edit", ["same size", "new leaf", "removed", "renamed", "mode", "link", "document"])
def test_any_edit_of_a_folder_is_seen(tmp_path, edit):
    taxonomy = write_taxonomy(tmp_path / "taxonomy")
    source = Source(tmp_path, taxonomy)
    before = source.take().state
    qna = taxonomy / FREEFORM / "qna.yaml"
    if edit == "same size":
        qna.write_text(qna.read_text().swapcase())
    elif edit == "new leaf":
        write_skill(taxonomy, MORE)
    elif edit == "removed":
        qna.unlink()
    elif edit == "renamed":
        qna.parent.rename(qna.parent.with_name("renamed"))
    elif edit == "mode":
        qna.chmod(0o600)
    elif edit == "link":
        (taxonomy / "link").symlink_to("/nowhere")
    elif edit == "document":
        write_files(taxonomy, {"documents/knowledge-places-islands.md": "Another text."})
    assert source.state() != before


def test_what_git_keeps_for_itself_is_not_part_of_a_folder(tmp_path, repository):
    source = Source(tmp_path, repository)
    before = source.take().state
    git(repository, "commit", "--quiet", "--allow-empty", "--message", "empty")
    write_files(repository, {".git/unrelated": "x"})
    assert source.state() == before


def test_a_home_inside_of_the_folder_is_not_part_of_it(tmp_path):
    write_taxonomy(tmp_path)
    source = Source(tmp_path, tmp_path)
    before = source.state()
    assert source.take().state == source.state() == before


def test_a_link_out_of_a_folder_is_not_followed_and_odd_names_are_no_trouble(tmp_path):
    taxonomy = write_taxonomy(tmp_path / "taxonomy")
    write_files(tmp_path, {"outside/file": "x"})
    (taxonomy / "link").symlink_to("../outside")
    (taxonomy / "loop").symlink_to("loop")
    (taxonomy / os.fsdecode(b"caf\xe9")).write_text("x")
    source = Source(tmp_path, taxonomy)
    before = source.state()
    write_files(tmp_path, {"outside/file": "changed"})
    assert source.state() == before


def test_three_hundred_leaves_are_scanned_in_no_time(tmp_path):
    write_files(
        tmp_path, {f"taxonomy/knowledge/{n}/{name}": "x" for n in range(300) for name in ("qna.yaml", "attribution.txt")}
    )
    source = Source(tmp_path, tmp_path / "taxonomy")
    times = []
    for _ in range(5):
        start = time.perf_counter()
        source.state()
        times.append(time.perf_counter() - start)
    assert min(times) < 0.1


def test_a_folder_that_is_not_there_is_named(tmp_path):
    assert Source(tmp_path, tmp_path / "none").refusal() == f"{tmp_path / 'none'}: no such folder; check taxonomy.path"


def test_a_plain_document_folder_outside_of_the_taxonomy_is_part_of_the_state(tmp_path):
    taxonomy = write_taxonomy(tmp_path / "taxonomy")
    write_knowledge(taxonomy, "knowledge/other", "../outside")
    source = Source(tmp_path, taxonomy)
    snapshot = source.take()
    assert snapshot.document_folders == [str(tmp_path / "outside")]
    assert source.state() == snapshot.state
    document = tmp_path / "outside/knowledge-other.md"
    document.write_text(document.read_text() + "\nOne more sentence here.\n")
    assert source.state() != snapshot.state
    assert source.take().usable["knowledge/other"] != snapshot.usable["knowledge/other"]


def test_a_document_folder_that_appears_is_seen(tmp_path):
    taxonomy = write_taxonomy(tmp_path / "taxonomy")
    write_knowledge(taxonomy, "knowledge/other", "../outside")
    (tmp_path / "outside").rename(tmp_path / "away")
    source = Source(tmp_path, taxonomy)
    before = source.take()
    assert "knowledge/other" not in before.usable and source.state() == before.state
    (tmp_path / "away").rename(tmp_path / "outside")
    assert source.state() != before.state
    assert "knowledge/other" in source.take().usable


def test_a_change_in_the_middle_of_reading_is_seen_afterwards(tmp_path):
    taxonomy = write_taxonomy(tmp_path / "taxonomy")
    source = Source(tmp_path, taxonomy)
    snapshot = take_snapshot(source.home, source.settings, lambda done, total, leaf: touch_qna(taxonomy))
    assert source.state() != snapshot.state


def test_a_dirty_work_tree_is_read_as_it_stands(tmp_path, repository):
    write_skill(repository, MORE)
    snapshot = Source(tmp_path, repository).take()
    assert MORE in snapshot.usable
    assert snapshot.taxonomy_commit == git(repository, "rev-parse", "HEAD") + "+changes"
    assert snapshot.branch == "main"


# a git repository at a ref


@pytest.fixture(params=["work tree", "bare", "bundle", "ssh"])
def at_main(request, tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch):
    """A source that reads branch main of the same repository in one of the ways there are, and how to renew what it reads."""
    address = {
        "work tree": str(repository),
        "bare": str(tmp_path / "bare.git"),
        "bundle": str(tmp_path / "file.bundle"),
        "ssh": f"me@host:{repository}",
    }[request.param]
    serve_by_ssh(tmp_path, monkeypatch)

    def publish() -> None:
        if request.param == "bare":
            git(tmp_path, "clone", "--quiet", "--bare", "taxonomy", "new.git")
            shutil.rmtree(address, ignore_errors=True)
            (tmp_path / "new.git").rename(address)
        elif request.param == "bundle":
            git(repository, "bundle", "create", "--quiet", address, "--all")

    publish()
    return Source(tmp_path, address, "main"), publish


def test_a_commit_of_the_ref_is_seen_and_read_and_going_back_gives_the_same_snapshot(tmp_path, repository, at_main):
    source, publish = at_main
    head = git(repository, "rev-parse", "HEAD")
    one = source.take()
    assert (one.taxonomy_commit, one.branch, one.notes) == (head, "main", [])
    assert one.state == source.state() == source.take().state
    write_skill(repository, MORE)
    publish()
    assert source.state() == one.state, "what is not committed does not count"
    commit_files(repository, {})
    publish()
    assert source.state() != one.state
    two = source.take()
    assert two.usable.keys() - one.usable.keys() == {MORE}
    git(repository, "revert", "--no-edit", "HEAD")
    publish()
    three = source.take()
    assert (three.id, three.rows, three.notes) == (one.id, one.rows, [])
    assert three.taxonomy_commit != one.taxonomy_commit


def test_a_rewritten_history_is_said(tmp_path, repository, at_main):
    source, publish = at_main
    source.take()
    touch_qna(repository)
    before = commit_files(repository, {})
    publish()
    assert source.take().notes == []
    git(repository, "commit", "--quiet", "--amend", "--message", "again")
    publish()
    after = git(repository, "rev-parse", "HEAD")
    snapshot = source.take()
    (note,) = snapshot.notes
    assert note.startswith("the history of main was rewritten")
    assert before[:12] in note and after[:12] in note
    assert current_snapshot(source.home) == snapshot
    assert source.take().notes == []


def test_a_deleted_branch_is_an_error_that_says_what_to_do_and_the_last_snapshot_stays(tmp_path, repository, at_main):
    source, publish = at_main
    taken = source.take()
    git(repository, "branch", "--move", "main", "trunk")
    publish()
    said = source.refusal()
    assert said.startswith(f"{source.address}: no branch or tag 'main'") and "taxonomy.ref" in said
    assert current_snapshot(source.home) == taken


def test_another_ref_is_said(tmp_path, repository, at_main):
    source, publish = at_main
    git(repository, "checkout", "--quiet", "-b", "other")
    write_skill(repository, MORE)
    commit_files(repository, {})
    git(repository, "tag", "--annotate", "v1", "--message", "one")
    publish()
    assert MORE not in source.take().usable
    source.set("other")
    snapshot = source.take()
    assert MORE in snapshot.usable
    assert snapshot.notes == ["the taxonomy was switched from main to other"]
    source.set("v1")
    tagged = source.take()
    assert (tagged.taxonomy_commit, tagged.branch) == (snapshot.taxonomy_commit, "v1")


def test_without_a_ref_a_url_gives_its_head(tmp_path, repository, monkeypatch):
    serve_by_ssh(tmp_path, monkeypatch)
    git(repository, "checkout", "--quiet", "-b", "trunk")
    source = Source(tmp_path, f"ssh://host{repository}")
    assert source.take().branch == "trunk"
    git(repository, "checkout", "--quiet", "main")
    assert source.take().notes == ["the taxonomy was switched from trunk to main"]


def test_a_switched_or_reset_work_tree_is_said(tmp_path, repository):
    source = Source(tmp_path, repository)
    commit_files(repository, {"README.md": "x"})
    source.take()
    git(repository, "checkout", "--quiet", "-b", "other")
    assert source.take().notes == ["the taxonomy was switched from main to other"]
    git(repository, "reset", "--quiet", "--hard", "HEAD~1")
    assert "the history of other was rewritten" in source.take().notes[0]


def test_a_full_commit_id_is_a_ref_that_never_moves(tmp_path, repository):
    commit = git(repository, "rev-parse", "HEAD")
    touch_qna(repository)
    commit_files(repository, {})
    source = Source(tmp_path, repository, commit)
    assert source.take().taxonomy_commit == commit
    shutil.rmtree(repository)
    assert source.take().taxonomy_commit == commit


@pytest.mark.parametrize("ref", ["none", "mai", "ain", "*", "ma*", "HEAD~1", "--help", "-x", "refs/heads", "0" * 39])
def test_what_is_no_ref_is_named(tmp_path, repository, ref):
    assert f"no branch or tag '{ref}'" in Source(tmp_path, repository, ref).refusal()


def test_a_branch_is_not_taken_for_one_whose_name_ends_alike(tmp_path, repository):
    git(repository, "checkout", "--quiet", "-b", "a/main")
    write_skill(repository, MORE)
    commit_files(repository, {})
    assert MORE not in Source(tmp_path, repository, "main").take().usable


def test_a_bundle_without_a_ref_says_what_to_set(tmp_path, repository):
    git(repository, "bundle", "create", "--quiet", str(tmp_path / "file.bundle"), "--all")
    assert "set taxonomy.ref" in Source(tmp_path, tmp_path / "file.bundle").refusal()


def test_a_bare_repository_without_a_ref_says_what_to_set(tmp_path, repository):
    git(tmp_path, "clone", "--quiet", "--bare", "taxonomy", "bare.git")
    with pytest.raises(LabError, match=r"set taxonomy\.ref"):
        Source(tmp_path, tmp_path / "bare.git").take()


# out of reach


def test_a_remote_that_refuses_is_named_with_what_git_said(tmp_path, monkeypatch):
    serve_by_ssh(tmp_path, monkeypatch, "echo 'Permission denied (publickey).' >&2; exit 255")
    said = Source(tmp_path, "me@host:taxonomy.git").refusal()
    assert said.startswith("the taxonomy me@host:taxonomy.git cannot be reached: git ls-remote failed: Permission denied")
    assert "check taxonomy.path" in said


def test_a_remote_that_is_silent_is_given_up_with_its_ssh(tmp_path, monkeypatch):
    monkeypatch.setattr("lab_pipeline.taxonomy.source.REACH_SECONDS", 1)
    serve_by_ssh(tmp_path, monkeypatch, f"echo $$ > {tmp_path / 'pid'}; sleep 60")
    start = time.monotonic()
    with pytest.raises(LabError, match="took more than 1 s"):
        Source(tmp_path, "me@host:taxonomy.git").state()
    assert time.monotonic() - start < 20
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.kill(int((tmp_path / "pid").read_text()), 0)
            time.sleep(0.02)


def test_a_remote_out_of_reach_leaves_the_last_snapshot(tmp_path, repository, monkeypatch):
    serve_by_ssh(tmp_path, monkeypatch)
    source = Source(tmp_path, f"me@host:{repository}")
    taken = source.take()
    serve_by_ssh(tmp_path, monkeypatch, "exit 255")
    assert "cannot be reached" in source.refusal()
    assert current_snapshot(source.home) == taken


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
    write_skill(taxonomy, MORE)
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
