from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from lab_pipeline.config.settings import DocumentSettings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.storage import digest
from lab_pipeline.taxonomy.documents.repository import fetch_files
from lab_pipeline.taxonomy.leaf import DocumentReference
from lab_pipeline_tests.repositories import commit_files, git, write_files


def fetch(root: Path, repo: str, commit: str = "worktree", *patterns: str, **settings):
    """What the leaf of a taxonomy at `root`/taxonomy gets."""
    (root / "taxonomy").mkdir(exist_ok=True)
    reference = DocumentReference(repo, commit, patterns or ("**/*.md",), 1)
    return fetch_files(reference, root / "taxonomy", root / "mirrors", DocumentSettings(**settings))[0]


def texts(root: Path, *arguments, **settings) -> dict[str, str]:
    return {file.path: file.raw.decode(errors="replace") for file in fetch(root, *arguments, **settings)}


def refusal(root: Path, *arguments, **settings) -> str:
    with pytest.raises(LabError) as caught:
        fetch(root, *arguments, **settings)
    return str(caught.value)


# git repositories


def test_documents_are_read_as_they_were_at_the_commit(tmp_path):
    first = commit_files(tmp_path / "docs", {"a.md": "old"})
    second = commit_files(tmp_path / "docs", {"a.md": "new", "b.md": "more"})
    (tmp_path / "docs/a.md").write_text("not committed")
    assert texts(tmp_path, "../docs", first) == {"a.md": "old"}
    assert texts(tmp_path, "../docs", second) == {"a.md": "new", "b.md": "more"}


def test_a_document_carries_the_full_commit(tmp_path):
    commit = commit_files(tmp_path / "docs", {"a.md": "text"})
    assert [document.commit for document in fetch(tmp_path, "../docs", commit[:8])] == [commit]


def test_a_relative_repository_starts_at_the_taxonomy_not_at_the_working_directory(tmp_path, monkeypatch):
    inside = commit_files(tmp_path / "taxonomy/docs", {"a.md": "inside"})
    commit_files(tmp_path / "docs", {"a.md": "outside"})
    monkeypatch.chdir(tmp_path)
    assert texts(tmp_path, "docs", inside) == {"a.md": "inside"}
    assert texts(tmp_path, str(tmp_path / "taxonomy/docs"), inside) == {"a.md": "inside"}


def test_a_bundle_and_a_bare_repository_are_repositories(tmp_path):
    commit = commit_files(tmp_path / "docs", {"a.md": "text"})
    git(tmp_path / "docs", "bundle", "create", "--quiet", str(tmp_path / "docs.bundle"), "--all")
    git(tmp_path, "clone", "--quiet", "--bare", "docs", "bare.git")
    assert texts(tmp_path, "../docs.bundle", commit) == {"a.md": "text"}
    assert texts(tmp_path, "../bare.git", commit) == {"a.md": "text"}


def test_commits_of_other_branches_and_tags_are_found(tmp_path):
    docs = tmp_path / "docs"
    commit_files(docs, {"a.md": "main"})
    git(docs, "checkout", "--quiet", "-b", "other")
    other = commit_files(docs, {"a.md": "other"})
    git(docs, "checkout", "--quiet", "--detach", "main")
    tagged = commit_files(docs, {"a.md": "tagged"})
    git(docs, "tag", "v1")
    git(docs, "checkout", "--quiet", "main")
    assert texts(tmp_path, "../docs", other) == {"a.md": "other"}
    assert texts(tmp_path, "../docs", tagged) == {"a.md": "tagged"}


def test_a_commit_once_mirrored_is_read_without_the_source(tmp_path):
    commit = commit_files(tmp_path / "docs", {"a.md": "text"})
    bundle = tmp_path / "docs.bundle"
    git(tmp_path / "docs", "bundle", "create", "--quiet", str(bundle), "--all")
    fetch(tmp_path, "../docs.bundle", commit)
    bundle.write_bytes(b"no bundle any more")
    assert texts(tmp_path, "../docs.bundle", commit) == {"a.md": "text"}
    assert "git fetch failed" in refusal(tmp_path, "../docs.bundle", "0" * 40)


def test_a_commit_once_mirrored_is_read_when_the_source_is_gone(tmp_path):
    commit = commit_files(tmp_path / "docs", {"a.md": "text"})
    fetch(tmp_path, "../docs", commit)
    shutil.rmtree(tmp_path / "docs")
    assert texts(tmp_path, "../docs", commit) == {"a.md": "text"}


def test_a_new_commit_is_fetched_into_the_mirror_that_is_there(tmp_path):
    fetch(tmp_path, "../docs", commit_files(tmp_path / "docs", {"a.md": "old"}))
    assert texts(tmp_path, "../docs", commit_files(tmp_path / "docs", {"a.md": "new"})) == {"a.md": "new"}
    assert len(list((tmp_path / "mirrors").iterdir())) == 1


def test_a_rewritten_history_is_fetched(tmp_path):
    docs = tmp_path / "docs"
    fetch(tmp_path, "../docs", commit_files(docs, {"a.md": "old"}))
    (docs / "a.md").write_text("rewritten")
    git(docs, "commit", "--quiet", "--all", "--amend", "--message", "again")
    assert texts(tmp_path, "../docs", git(docs, "rev-parse", "HEAD")) == {"a.md": "rewritten"}


def test_a_mirror_that_a_crash_left_half_made_is_mended(tmp_path):
    commit = commit_files(tmp_path / "docs", {"a.md": "text"})
    (tmp_path / "mirrors" / f"{digest(str(tmp_path / 'docs'))}.git").mkdir(parents=True)
    assert texts(tmp_path, "../docs", commit) == {"a.md": "text"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_repository_of_another_user_is_read(tmp_path):
    commit = commit_files(tmp_path / "docs", {"a.md": "text"})
    for path in [tmp_path / "docs", *(tmp_path / "docs").rglob("*")]:
        os.chown(path, 65534, 65534)
    assert texts(tmp_path, "../docs", commit) == {"a.md": "text"}


# which files


def test_patterns_choose_files_and_those_that_no_reader_takes_are_named(tmp_path):
    files = {"a.md": "1", "b.txt": "2", "sub/c.MD": "3", "sub/deep/d.md": "4", "e.py": "5", "f.pdf": "6", ".h.md": "7"}
    commit = commit_files(tmp_path / "docs", files)
    assert set(texts(tmp_path, "../docs", commit, "*")) == {"a.md", "b.txt", "f.pdf"}
    assert set(texts(tmp_path, "../docs", commit, "sub/*.*")) == {"sub/c.MD"}
    assert set(texts(tmp_path, "../docs", commit, "**/*.md", "b.*")) == {"a.md", "b.txt", "sub/deep/d.md"}
    assert set(texts(tmp_path, "../docs", commit, "[ab].*")) == {"a.md", "b.txt"}
    for where in (commit, "worktree"):
        reference = DocumentReference("../docs", where, ("*",), 1)
        assert fetch_files(reference, tmp_path / "taxonomy", tmp_path / "mirrors", DocumentSettings())[1] == ["e.py"]


def test_a_plain_folder_gives_the_same_files_as_a_commit(tmp_path):
    files = {"a.md": "1", "b.txt": "2", "sub/c.md": "3", "sub/deep/d.md": "4", "e.py": "5", "日本 x.md": "6"}
    write_files(tmp_path / "plain", files)
    commit = commit_files(tmp_path / "docs", files)
    for patterns in (["*"], ["**/*.md"], ["sub/**"], ["a.md", "sub/deep/*"]):
        assert texts(tmp_path, "../plain", "worktree", *patterns) == texts(tmp_path, "../docs", commit, *patterns) != {}


@pytest.mark.parametrize("patterns", [["none.md"], ["../secret.md"], ["/etc/*.txt"], ["*.py"], ["["], [""]])
def test_patterns_that_match_no_text_are_a_problem_that_names_them(tmp_path, patterns):
    files = {"docs/a.md": "1", "docs/b.py": "2", "secret.md": "secret"}
    write_files(tmp_path, files)
    commit = commit_files(tmp_path / "docs", {})
    for where in ("worktree", commit):
        said = refusal(tmp_path, "../docs", where, *patterns)
        assert said.startswith(f"../docs at {where} has no readable file (.md, .markdown, .txt, ")
        assert patterns[0] in said


def test_a_pattern_with_many_deep_wildcards_is_refused_before_it_costs_time(tmp_path):
    write_files(tmp_path / "docs", {"a/" * 40 + "c.md": "x"})
    start = time.monotonic()
    assert "has more than 3 '**'" in refusal(tmp_path, "../docs", "worktree", "**/a/" * 12 + "b.md")
    refusal(tmp_path, "../docs", "worktree", "**/a/" * 3 + "*a" * 20 + "b.md")
    assert time.monotonic() - start < 3


def test_too_much_text_is_refused(tmp_path):
    commit = commit_files(tmp_path / "docs", {"a.md": "x" * 600_000, "b.md": "x" * 600_000})
    for where in ("worktree", commit):
        assert "documents.max_megabytes = 1" in refusal(tmp_path, "../docs", where, max_megabytes=1)
        assert set(texts(tmp_path, "../docs", where, "a.md", max_megabytes=1)) == {"a.md"}


# plain folders


def test_a_plain_folder_is_pinned_by_the_bytes_of_each_file(tmp_path):
    write_files(tmp_path / "docs", {"a.md": "one", "b.md": "two"})
    before = {document.path: document.commit for document in fetch(tmp_path, "../docs")}
    assert all(commit.startswith("worktree:") for commit in before.values())
    write_files(tmp_path / "docs", {"b.md": "three"})
    after = {document.path: document.commit for document in fetch(tmp_path, "../docs")}
    assert before["a.md"] == after["a.md"]
    assert before["b.md"] != after["b.md"]


def test_the_word_worktree_needs_a_plain_folder(tmp_path):
    write_files(tmp_path, {"file.bundle": "x"})
    for repo in ("../file.bundle", "../missing", "https://example.org/docs.git"):
        assert "needs a plain local folder" in refusal(tmp_path, repo)


# what is not there


def test_a_missing_repository_is_named_with_the_place_looked_at(tmp_path):
    said = refusal(tmp_path, "../missing", "0" * 40)
    assert said == f"document repository ../missing does not exist (looked at {tmp_path / 'missing'})"


@pytest.mark.parametrize("commit", ["0" * 40, "main~7", "--help", "-n1", "", " ", "refs/heads/none"])
def test_a_missing_commit_is_named(tmp_path, commit):
    commit_files(tmp_path / "docs", {"a.md": "text"})
    assert refusal(tmp_path, "../docs", commit) == f"../docs has no commit {commit}"


def test_a_blob_is_no_commit(tmp_path):
    commit_files(tmp_path / "docs", {"a.md": "text"})
    blob = git(tmp_path / "docs", "rev-parse", "HEAD:a.md")
    assert "has no commit" in refusal(tmp_path, "../docs", blob)


def test_a_folder_that_is_no_repository_is_a_problem_that_says_so(tmp_path):
    write_files(tmp_path / "docs", {"a.md": "text"})
    assert "does not appear to be a git repository" in refusal(tmp_path, "../docs", "0" * 40)


def test_a_server_that_refuses_is_a_problem_that_says_so(tmp_path):
    said = refusal(tmp_path, "https://127.0.0.1:1/docs.git", "0" * 40, timeout_seconds=20)
    assert said.startswith("git ls-remote failed: fatal: unable to access 'https://127.0.0.1:1/docs.git/'")


def test_git_that_takes_too_long_is_stopped(tmp_path, monkeypatch):
    commit_files(tmp_path / "docs", {"a.md": "text"})
    slow = tmp_path / "bin/git"
    write_files(tmp_path, {"bin/git": "#!/bin/sh\nexec sleep 30\n"})
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    start = time.monotonic()
    assert "took more than 1 s" in refusal(tmp_path, "../docs", "0" * 40, timeout_seconds=1)
    assert time.monotonic() - start < 10


# hostile input


@pytest.mark.parametrize("repo", ["--upload-pack=touch hacked", "-c", "-"])
def test_an_address_that_looks_like_an_option_is_refused(tmp_path, repo):
    assert "looks like an option" in refusal(tmp_path, repo, "0" * 40)


@pytest.mark.parametrize(
    "repo",
    [
        "file:///{docs}",
        "FILE:///{docs}",
        "git://host/x",
        "http://host/x",
        "ftp://host/x",
        "ext::touch hacked",
        "fd::7",
        "a::b",
    ],
)
def test_other_transports_are_refused_even_where_the_repository_is_there(tmp_path, monkeypatch, repo):
    commit = commit_files(tmp_path / "docs", {"a.md": "text"})
    monkeypatch.chdir(tmp_path)
    assert "is not allowed; use https, ssh, or a path" in refusal(tmp_path, repo.format(docs=tmp_path / "docs"), commit)
    assert not (tmp_path / "hacked").exists()
    assert not (tmp_path / "mirrors").exists()


@pytest.mark.parametrize("repo", ["https://[::1", "https://exa\u2100mple.org/x", "//[x"])
def test_an_address_that_cannot_be_parsed_is_a_problem(tmp_path, repo):
    assert refusal(tmp_path, repo, "0" * 40).startswith(f"document repository {repo} is no address: ")


def test_local_repositories_are_refused_where_the_settings_say_so(tmp_path):
    commit = commit_files(tmp_path / "docs", {"a.md": "text"})
    write_files(tmp_path / "taxonomy/inside", {"a.md": "text"})
    git(tmp_path / "docs", "bundle", "create", "--quiet", str(tmp_path / "docs.bundle"), "--all")
    fetch(tmp_path, "../docs", commit)  # a mirror from before opens no way in either
    for repo in ("../docs", str(tmp_path / "docs"), "../docs.bundle", "inside", ".", "C:docs"):
        for where in (commit, "worktree"):
            said = refusal(tmp_path, repo, where, allow_local=False)
            assert said == f"local document repository {repo} is refused (documents.allow_local is false)"


def test_an_address_like_user_at_host_never_reads_a_local_repository(tmp_path, monkeypatch):
    commit = commit_files(tmp_path / "user@host:docs", {"a.md": "text"})
    commit_files(tmp_path / "user@dir/x:docs", {"a.md": "text"})
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ssh").write_text('#!/bin/sh\necho "no way: $*" >&2\nexit 1\n')
    (tmp_path / "bin/ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    said = refusal(tmp_path, "user@host:docs", commit, allow_local=False)
    assert "no way: -oBatchMode=yes" in said
    assert "transport 'file' not allowed" in refusal(tmp_path, "user@dir/x:docs", commit, allow_local=False)


def test_a_symbolic_link_in_a_repository_is_not_followed(tmp_path):
    write_files(tmp_path, {"secret.md": "secret", "docs/real/a.md": "text"})
    (tmp_path / "docs/link.md").symlink_to(tmp_path / "secret.md")
    (tmp_path / "docs/inner.md").symlink_to("real/a.md")
    (tmp_path / "docs/folder").symlink_to(tmp_path)
    commit = commit_files(tmp_path / "docs", {})
    assert texts(tmp_path, "../docs", commit, "**", "*") == {"real/a.md": "text"}


def test_a_symbolic_link_that_leaves_a_plain_folder_is_not_followed(tmp_path):
    write_files(tmp_path, {"secret/s.md": "secret", "docs/real/a.md": "text", "docs-beside/s.md": "secret"})
    (tmp_path / "docs/link.md").symlink_to(tmp_path / "secret/s.md")
    (tmp_path / "docs/beside.md").symlink_to("../docs-beside/s.md")
    (tmp_path / "docs/folder").symlink_to("../secret")
    (tmp_path / "docs/loop.md").symlink_to("loop.md")
    (tmp_path / "docs/within.md").symlink_to("real/a.md")
    found = texts(tmp_path, "../docs", "worktree", "**", "*", "folder/*", "../secret/*")
    assert found == {"real/a.md": "text", "within.md": "text"}


def test_a_repository_that_is_a_loop_of_links_is_a_problem(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for where in ("worktree", "0" * 40):
        assert "document repository ../loop cannot be found" in refusal(tmp_path, "../loop", where)


def test_hooks_and_filters_of_a_repository_do_not_run(tmp_path):
    docs = tmp_path / "docs"
    commit = commit_files(docs, {"a.md": "text", ".gitattributes": "*.md filter=evil diff=evil\n"})
    git(docs, "config", "filter.evil.smudge", f"touch {tmp_path / 'hacked'}")
    git(docs, "config", "core.fsmonitor", f"touch {tmp_path / 'hacked'}")
    git(docs, "config", "uploadpack.packObjectsHook", f"touch {tmp_path / 'hacked'}")
    for hook in ("post-checkout", "reference-transaction", "post-upload-pack", "pre-auto-gc"):
        path = docs / ".git/hooks" / hook
        write_files(docs, {f".git/hooks/{hook}": f"#!/bin/sh\ntouch {tmp_path / 'hacked'}\n"})
        path.chmod(0o755)
    assert texts(tmp_path, "../docs", commit) == {"a.md": "text"}
    assert not (tmp_path / "hacked").exists()


def test_the_users_own_git_settings_have_no_say(tmp_path, monkeypatch):
    commit = commit_files(tmp_path / "docs", {"a.md": "text"})
    other = commit_files(tmp_path / "other", {"a.md": "redirected"})
    write_files(tmp_path, {"me/.gitconfig": f'[url "{tmp_path}/other"]\n\tinsteadOf = {tmp_path}/docs\n'})
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other/.git"))
    assert texts(tmp_path, "../docs", commit) == {"a.md": "text"}
    assert "has no commit" in refusal(tmp_path, "../docs", other)


def test_submodules_are_not_fetched(tmp_path):
    commit_files(tmp_path / "sub", {"s.md": "sub"})
    commit_files(tmp_path / "docs", {"a.md": "text"})
    git(tmp_path / "docs", *"-c protocol.file.allow=always submodule --quiet add ../sub sub".split())
    commit = commit_files(tmp_path / "docs", {})
    shutil.rmtree(tmp_path / "sub")
    assert texts(tmp_path, "../docs", commit) == {"a.md": "text"}


def test_file_names_with_odd_characters_are_read(tmp_path):
    names = ["a b.md", "-x.md", "new\nline.md", "tab\t.md", "ü.md", "quote'\".md"]
    commit = commit_files(tmp_path / "docs", {name: name for name in names})
    assert texts(tmp_path, "../docs", commit) == {name: name for name in names}
