from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from lab_pipeline.core.errors import LabError
from lab_pipeline.taxonomy.snapshot import current_snapshot, take_snapshot
from lab_pipeline_tests.builders import FREEFORM, write_knowledge, write_skill, write_taxonomy
from lab_pipeline_tests.repositories import commit_files, git, write_files
from lab_pipeline_tests.taxonomy.sources import Source, serve_by_ssh, touch_qna

MORE = "compositional_skills/more"


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
