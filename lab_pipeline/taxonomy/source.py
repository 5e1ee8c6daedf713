"""Open the taxonomy: a folder as it is, or a ref of a local or remote git repository.

A ref is fetched into a bare mirror in the home, and the regular files of its commit are exported to a folder in the home that
is named by the commit's tree. Nothing is ever checked out.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from lab_pipeline.config.settings import Settings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.git import Blob, Git, GitError, Tip, is_remote
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import digest, read_json, written_whole
from lab_pipeline.taxonomy.documents.sensitive import refused_hosts
from lab_pipeline.taxonomy.leaf import QNA

REACH_SECONDS = 20
"""Maximum number of seconds to ask a repository what its ref resolves to."""

MOST_DOCUMENTS = 4
"""Maximum size of all files of a taxonomy in git, in multiples of `documents.max_megabytes`."""

_MOST_FILES = 200_000
_EXPORTS_KEPT = 3
_FETCHED = "refs/taxonomy/current"


@dataclass(frozen=True)
class Taxonomy:
    """A taxonomy whose files lie in a folder, ready to be read, and where they came from."""

    folder: Path
    commit: str
    """Full id of the commit, with `+changes` appended if the folder's files differ from it; '' outside git."""
    branch: str
    """Branch or other ref that was read; '' outside git, or if a folder's repository is on no branch."""
    state: str
    """The part of `taxonomy_state` that stands for the taxonomy's files, computed before any file was read."""
    exported: bool
    """True if `folder` was exported from git, False if it is the user's own."""
    origin: Path | None
    """The local repository that `folder` was exported from; None for a remote repository, or if it was not exported."""
    notes: list[str]
    """A note if the branch was switched or its history rewritten since the current snapshot."""


def reads_git(settings: Settings) -> bool:
    """Tell whether the taxonomy is read from a ref in git (True), or from a folder as it is (False)."""
    return settings.taxonomy.ref is not None or is_remote(settings.taxonomy.path)


def taxonomy_state(home: Home, settings: Settings, budgets: str = "") -> str:
    """Return a hash of all that a snapshot would depend on; while it stays the same, so does the snapshot.

    It covers the commit of the ref or, for a folder, the `scan` of its files; the `scan` of each document folder outside the
    taxonomy that the current snapshot names; the `refused_hosts`; and the id of the `PassageBudgets` of passages. It is
    cheap, because no file is read or fetched.

    Raises:
        LabError: The taxonomy does not exist, cannot be reached, lacks the ref, or has too many files.
    """
    outside = read_json(home.current_snapshot).get("document_folders", []) if home.current_snapshot.exists() else []
    scans = {folder: scan(home, Path(folder)) for folder in outside}
    return whole_state(_source_state(home, settings), scans, refused_hosts(settings), budgets)


def whole_state(taxonomy: str, document_folders: dict[str, str], refused: list[str], budgets: str) -> str:
    """Return the `taxonomy_state` made of `Taxonomy.state`, the `scan` of each document folder by path, `refused_hosts` and the
    id of the `PassageBudgets`."""
    return digest([taxonomy, document_folders, *([refused] if refused else []), *([budgets] if budgets else [])])


def open_taxonomy(home: Home, settings: Settings) -> Taxonomy:
    """Make the current state of the taxonomy ready to be read, and return its folder, commit, branch, state and notes.

    A folder is left as it is. A ref is fetched into the home's mirror, and its regular files exported to a folder of the home,
    unless the home already has them; of earlier exports, the two last used are kept and the others removed.

    Raises:
        LabError: The taxonomy does not exist, cannot be reached, lacks the ref, is too large or has too many files, or its ref
            moved while it was fetched.
    """
    return _open_ref(home, settings) if reads_git(settings) else _open_folder(home, settings)


def _open_folder(home: Home, settings: Settings) -> Taxonomy:
    state = _source_state(home, settings)
    folder = Path(settings.taxonomy.path).resolve()
    commit, branch = _user_git(folder, "rev-parse", "HEAD"), _user_git(folder, "symbolic-ref", "--short", "HEAD")
    notes = _notes(home, branch, commit, lambda before: _rewritten(folder, before)) + _sparse_notes(folder)
    changes = "+changes" if commit and _user_git(folder, "status", "--porcelain", "--", ".") else ""
    return Taxonomy(folder, commit + changes, branch, state, False, None, notes)


def _open_ref(home: Home, settings: Settings) -> Taxonomy:
    source = settings.taxonomy
    tip = find_tip(home, settings)
    git = Git(home.taxonomy_mirror, source.path, settings.documents.timeout_seconds)
    home.taxonomies.mkdir(parents=True, exist_ok=True)
    with FileLock(home.taxonomies / ".lock"):
        commit = git.commit(tip.id)
        if commit is None:
            try:
                git.fetch(f"+{tip.name or tip.id}:{_FETCHED}")
            except GitError as error:
                raise _unreachable(settings, error) from None
            commit = git.commit(tip.id)
        if commit is None:
            raise LabError(f"{source.path}: {tip.branch} moved while it was fetched; run again")
        folder = _export(home, settings, git, commit)
    notes = _notes(home, tip.branch, commit, lambda before: git.rewritten(commit, before))
    origin = None if is_remote(source.path) else Path(source.path)
    return Taxonomy(folder, commit, tip.branch, tip.id, True, origin, notes)


def find_tip(home: Home, settings: Settings) -> Tip:
    """Ask the repository of a taxonomy in git what its ref, by default HEAD, resolves to at present.

    Raises:
        LabError: The repository cannot be reached, or has no such ref.
    """
    path, ref = settings.taxonomy.path, settings.taxonomy.ref or "HEAD"
    git = Git(home.taxonomy_mirror, path, min(REACH_SECONDS, settings.documents.timeout_seconds))
    try:
        tip = git.tip(ref)
    except GitError as error:
        raise _unreachable(settings, error) from None
    if tip is None:
        raise LabError(
            f"{path}: no branch or tag {ref!r}; if it was deleted or renamed, correct taxonomy.ref in settings.yaml "
            "(a branch, a tag, or a full commit id)"
        )
    return tip


def scan(home: Home, folder: Path) -> str:
    """Return a hash of path, size, modification time and mode of all files in a folder, at any depth.

    `.git`, the home, and folders that cannot be read are skipped. Symbolic links are not followed.

    Raises:
        LabError: There are more than 200,000 files.
    """
    found: list[tuple[str, int, int, int]] = []
    folders = [str(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.name == ".git" or entry.path == str(home.root):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                        continue
                    stat = entry.stat(follow_symlinks=False)
                    found.append((os.path.relpath(entry.path, folder), stat.st_size, stat.st_mtime_ns, stat.st_mode))
        except OSError:  # the folder is gone or cannot be read, so a snapshot cannot read its files either
            continue
        if len(found) > _MOST_FILES:
            raise LabError(f"{folder}: more than {_MOST_FILES} files; name the folder that holds the documents alone")
    return digest(repr(sorted(found)))  # repr, because a name need not be UTF-8


def _source_state(home: Home, settings: Settings) -> str:
    if reads_git(settings):
        return find_tip(home, settings).id
    folder = Path(settings.taxonomy.path)
    if folder.is_file():
        raise LabError(f"{folder}: no folder; to read a git bundle, set taxonomy.ref")
    if not folder.is_dir():
        raise LabError(f"{folder}: no such folder; check taxonomy.path")
    return scan(home, folder)


def _unreachable(settings: Settings, error: GitError) -> LabError:
    path = settings.taxonomy.path
    remote = ", the network, and that git may read it without asking (ssh key, ~/.netrc)" if is_remote(path) else ""
    return LabError(f"the taxonomy {path} cannot be reached: {error}; check taxonomy.path in settings.yaml{remote}")


def _rewritten(folder: Path, before: str) -> bool:
    """Tell whether the commit `before` is no ancestor of HEAD; False in a shallow clone, whose history is not known."""
    descends = _user_git(folder, "merge-base", before, "HEAD") == before
    return not descends and _user_git(folder, "rev-parse", "--is-shallow-repository") != "true"


def _sparse_notes(folder: Path) -> list[str]:
    """Return a note if a sparse checkout keeps leaves out of the folder; else no note."""
    tracked = _user_git(folder, "ls-files", "-t", "--", f"*/{QNA}").splitlines()
    absent = [line for line in tracked if line.startswith("S ") and not Path(folder, line[2:]).exists()]
    if not absent:
        return []
    return [f"the sparse checkout leaves out {len(absent)} of {len(tracked)} leaves (`git sparse-checkout disable` brings all)"]


def _notes(home: Home, branch: str, commit: str, rewritten: Callable[[str], bool]) -> list[str]:
    """Return a note if the branch was switched, or its history rewritten, since the current snapshot; else no note."""
    before = read_json(home.current_snapshot) if home.current_snapshot.exists() else {}
    branch_before, commit_before = before.get("branch", ""), before.get("taxonomy_commit", "").removesuffix("+changes")
    if branch_before and branch and branch_before != branch:
        return [f"the taxonomy was switched from {branch_before} to {branch}"]
    if commit and commit_before and rewritten(commit_before):
        return [
            f"the history of {branch or 'the taxonomy'} was rewritten (forced push, amended commit or reset): "
            f"{commit_before[:12]}, the last one read, is no ancestor of {commit[:12]}"
        ]
    return []


def _user_git(folder: Path, *arguments: str) -> str:
    """Run git in the user's work tree, with the user's settings; return what it prints, or '' if it fails."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _export(home: Home, settings: Settings, git: Git, commit: str) -> Path:
    """Export a commit's regular files with safe paths to a folder, unless it exists, and return the folder; delete all other
    exports but the two used last."""
    folder = home.taxonomies / git("rev-parse", f"{commit}^{{tree}}").decode().strip()
    if not folder.exists():
        blobs = [blob for blob in git.files(commit) if _is_safe_to_write(blob.path)]
        megabytes = sum(blob.size for blob in blobs) / 1_000_000
        most = MOST_DOCUMENTS * settings.documents.max_megabytes
        if megabytes > most:
            raise LabError(
                f"{settings.taxonomy.path}: {megabytes:.0f} MB of files at {commit[:12]}, more than {most} "
                f"({MOST_DOCUMENTS} times documents.max_megabytes)"
            )
        with written_whole(folder) as scratch:
            scratch.mkdir()
            _write(scratch, blobs, git.contents(blobs))
    os.utime(folder)
    others = [path for path in home.taxonomies.iterdir() if path.is_dir() and path != folder]  # even if the clock jumps
    for old in sorted(others, key=lambda path: path.stat().st_mtime)[: 1 - _EXPORTS_KEPT]:
        with tempfile.TemporaryDirectory(dir=home.taxonomies) as bin:  # move it first, so that nobody finds half of it
            old.rename(Path(bin) / old.name)
    return folder


def _is_safe_to_write(path: str) -> bool:
    """Tell whether a path from a git tree may be written below a folder; a crafted tree may contain any path.

    Not if it leads out of the folder, is not in plain form ('a//b', './a'), has a part `.git` (any case), or is too long.
    """
    parts = path.split("/")
    return (
        len(os.fsencode(path)) < 2000
        and all(part not in ("", ".", "..") and len(os.fsencode(part)) < 256 for part in parts)
        and ".git" not in (part.lower() for part in parts)
    )


def _write(folder: Path, blobs: Iterable[Blob], contents: Iterable[bytes]) -> None:
    for blob, content in zip(blobs, contents, strict=True):
        path = folder / blob.path
        with suppress(FileExistsError, NotADirectoryError, IsADirectoryError):  # the tree has this name twice; the first counts
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                file.write(content)
