"""Where the taxonomy comes from: a folder as it stands, or a ref of a git repository, local or remote.

A repository is fetched into one bare mirror below the home, and the files of the commit are exported to a folder named by
their tree. Nothing is ever checked out.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from lab_pipeline.config.settings import Settings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.git import Blob, Git, GitError, Tip, is_remote
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import digest, read_json, written_whole
from lab_pipeline.taxonomy.documents.sensitive import refused_hosts

REACH_SECONDS = 20
"""Longest time that asking a repository for its ref may take."""

MOST_DOCUMENTS = 4
"""A repository may hold this many times `documents.max_megabytes`."""

_MOST_FILES = 200_000
_EXPORTS_KEPT = 3
_FETCHED = "refs/taxonomy/current"


@dataclass(frozen=True)
class Taxonomy:
    """A taxonomy ready to be read."""

    folder: Path
    commit: str
    """Of the repository it is from, or around it; with `+changes` for an unclean work tree, '' outside of git."""
    branch: str
    """The branch or other ref that was read, '' outside of git."""
    state: str
    """Its own part of `taxonomy_state`, found before anything is read."""
    exported: bool
    origin: Path | None
    """The local repository it was exported from."""
    notes: list[str]
    """What happened to branch and history since the current snapshot that an operator should know."""

    @property
    def remote(self) -> bool:
        return self.exported and self.origin is None


def reads_git(settings: Settings) -> bool:
    """Whether the taxonomy is the commit of a ref rather than a folder as it stands."""
    return settings.taxonomy.ref is not None or is_remote(settings.taxonomy.path)


def taxonomy_state(home: Home, settings: Settings) -> str:
    """What a snapshot depends on: equal states give equal snapshots. Cheap, for it reads no file and fetches nothing.

    For a folder that is the path, size, time and mode of every file, for a repository the commit of its ref; and so for
    the folders outside of the taxonomy whose documents the leaves of the current snapshot refer to.

    Raises:
        LabError: the taxonomy is not there, or cannot be reached.
    """
    outside = _current(home).get("document_folders", [])
    scans = {folder: scan(home, Path(folder)) for folder in outside}
    return whole_state(_own_state(home, settings), scans, refused_hosts(settings))


def whole_state(taxonomy: str, document_folders: dict[str, str], refused: list[str]) -> str:
    """The state of a taxonomy together with the `scan` of each document folder outside of it, and the `refused_hosts`."""
    return digest([taxonomy, document_folders, *([refused] if refused else [])])


def open_taxonomy(home: Home, settings: Settings) -> Taxonomy:
    """The taxonomy as it is now; from git it is fetched and exported first, unless the home holds that state already.

    Raises:
        LabError: it is not there, cannot be reached, lacks the ref, or is too large.
    """
    return _open_ref(home, settings) if reads_git(settings) else _open_folder(home, settings)


def _open_folder(home: Home, settings: Settings) -> Taxonomy:
    state = _own_state(home, settings)
    folder = Path(settings.taxonomy.path).resolve()
    commit, branch = _own_git(folder, "rev-parse", "HEAD"), _own_git(folder, "symbolic-ref", "--short", "HEAD")
    before = _commit_before(home)
    notes = _notes(home, branch, commit, not before or _own_git(folder, "merge-base", before, "HEAD") == before)
    changes = "+changes" if commit and _own_git(folder, "status", "--porcelain", "--", ".") else ""
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
    before = _commit_before(home)
    notes = _notes(home, tip.branch, commit, not before or git.descends(commit, before))
    origin = None if is_remote(source.path) else Path(source.path)
    return Taxonomy(folder, commit, tip.branch, tip.id, True, origin, notes)


def find_tip(home: Home, settings: Settings) -> Tip:
    """What the ref of a taxonomy in git stands for now.

    Raises:
        LabError: the repository cannot be reached, or has no such ref.
    """
    source = settings.taxonomy
    ref = source.ref or "HEAD"
    git = Git(home.taxonomy_mirror, source.path, min(REACH_SECONDS, settings.documents.timeout_seconds))
    try:
        tip = git.tip(ref)
    except GitError as error:
        raise _unreachable(settings, error) from None
    if tip is None:
        raise LabError(
            f"{source.path}: no branch or tag {ref!r}; if it was deleted or renamed, correct taxonomy.ref in settings.yaml "
            "(a branch, a tag, or a full commit id)"
        )
    return tip


def scan(home: Home, folder: Path) -> str:
    """Hash of path, size, time and mode of every file below a folder, but for `.git` and the home; no link is followed.

    Raises:
        LabError: there are too many files.
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
                    about = entry.stat(follow_symlinks=False)
                    found.append((os.path.relpath(entry.path, folder), about.st_size, about.st_mtime_ns, about.st_mode))
        except OSError:  # gone, or not to be read: then its files are not part of what is seen
            continue
        if len(found) > _MOST_FILES:
            raise LabError(f"{folder}: more than {_MOST_FILES} files; name the folder that holds the documents alone")
    return digest(repr(sorted(found)))  # repr, for a name need not be UTF-8


def _own_state(home: Home, settings: Settings) -> str:
    if reads_git(settings):
        return find_tip(home, settings).id
    folder = Path(settings.taxonomy.path)
    if folder.is_file():
        raise LabError(f"{folder}: no folder; to read a git bundle, set taxonomy.ref")
    if not folder.is_dir():
        raise LabError(f"{folder}: no such folder; check taxonomy.path")
    return scan(home, folder)


def _unreachable(settings: Settings, error: GitError) -> LabError:
    return LabError(
        f"the taxonomy {settings.taxonomy.path} cannot be reached: {error}; check taxonomy.path in settings.yaml, the network, "
        "and that git may read it without asking (ssh key, ~/.netrc)"
    )


def _current(home: Home) -> dict[str, Any]:
    """What is noted of the current snapshot."""
    return read_json(home.current_snapshot) if home.current_snapshot.exists() else {}


def _commit_before(home: Home) -> str:
    return str(_current(home).get("taxonomy_commit", "")).removesuffix("+changes")


def _notes(home: Home, branch: str, commit: str, descends: bool) -> list[str]:
    before = _current(home).get("branch", "")
    if before and branch and before != branch:
        return [f"the taxonomy was switched from {before} to {branch}"]
    if commit and not descends:
        return [
            f"the history of {branch or 'the taxonomy'} was rewritten (forced push, amended commit or reset): "
            f"{_commit_before(home)[:12]}, the last one read, is no ancestor of {commit[:12]}"
        ]
    return []


def _own_git(folder: Path, *arguments: str) -> str:
    """What git prints in the operator's own work tree, under the operator's own settings; '' where it fails."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _export(home: Home, settings: Settings, git: Git, commit: str) -> Path:
    """Folder with the commit's regular files, made if missing; older ones are dropped, but for a few."""
    folder = home.taxonomies / git("rev-parse", f"{commit}^{{tree}}").decode().strip()
    if not folder.exists():
        blobs = [blob for blob in git.files(commit) if _stays_inside(blob.path)]
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
    others = [path for path in home.taxonomies.iterdir() if path.is_dir() and path != folder]  # by name: a clock may jump
    for old in sorted(others, key=lambda path: path.stat().st_mtime)[: 1 - _EXPORTS_KEPT]:
        with tempfile.TemporaryDirectory(dir=home.taxonomies) as bin:  # moved first, so that no half of it is ever found
            old.rename(Path(bin) / old.name)
    return folder


def _stays_inside(path: str) -> bool:
    """Whether a tree's path is one that a file below a folder can have; a tree made by hand may hold any."""
    parts = path.split("/")
    return (
        len(os.fsencode(path)) < 2000
        and all(part not in ("", ".", "..") and len(os.fsencode(part)) < 256 for part in parts)
        and ".git" not in (part.lower() for part in parts)
    )


def _write(folder: Path, blobs: Iterable[Blob], contents: Iterable[bytes]) -> None:
    for blob, content in zip(blobs, contents, strict=True):
        path = folder / blob.path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                file.write(content)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):  # the tree gives one name twice: the first one counts
            continue
