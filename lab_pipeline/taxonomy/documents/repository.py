"""Fetch a leaf's documents from an untrusted git repository (see `lab_pipeline.core.git`) or a plain local folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from wcmatch import glob

from lab_pipeline.config.settings import DocumentSettings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.git import Git, GitError, is_remote
from lab_pipeline.core.storage import digest
from lab_pipeline.taxonomy.documents.reading import is_readable, readable_endings
from lab_pipeline.taxonomy.leaf import DocumentReference

WORKTREE = "worktree"
"""Value of `document.commit` for a plain local folder, which is read as it is and pinned by a hash of its content."""

MAX_DEEP_WILDCARDS = 3
"""Maximum number of '**' in a pattern: each multiplies the time that matching may take."""


@dataclass(frozen=True)
class File:
    """One file of a document repository."""

    path: str
    commit: str
    """Full commit id, or `worktree:<hash of the bytes>` for a plain folder."""
    raw: bytes


def fetch_files(
    reference: DocumentReference, taxonomy: Path, mirrors: Path, settings: DocumentSettings, origin: Path | None = None
) -> tuple[list[File], list[str]]:
    """Return the files that `reference` names and a reader takes, by path, and the paths of those that no reader takes.

    A git repository is contacted only if its mirror lacks the commit.

    Args:
        reference: Repository, commit and patterns; with commit `WORKTREE`, a plain local folder is read as it is.
        taxonomy: Folder of the taxonomy, at which relative paths start.
        mirrors: Folder in which mirrors of git repositories are kept.
        settings: Whether local paths are allowed, maximum time and size.
        origin: See `local_path`.

    Raises:
        LabError: The repository is not allowed, cannot be reached, lacks the commit, or has no matching file that is readable;
            the files are larger than `settings.max_megabytes`; or a pattern has too many '**'.
    """
    for pattern in reference.patterns:
        if pattern.count("**") > MAX_DEEP_WILDCARDS:
            raise LabError(f"pattern {pattern} has more than {MAX_DEEP_WILDCARDS} '**'")
    local = local_path(reference.repo, taxonomy, origin)
    if local and settings.allow_local is False:
        raise LabError(f"local document repository {reference.repo} is refused (documents.allow_local is false)")
    if local and local.is_dir() and reference.commit == WORKTREE:
        return _checked(reference, _read_folder(reference, local), settings)
    if reference.commit == WORKTREE:
        raise LabError(f"commit '{WORKTREE}' needs a plain local folder, which {reference.repo} is not")
    address = str(local) if local else reference.repo
    git = Git(mirrors / f"{digest(address)}.git", address, settings.timeout_seconds)
    commit = git.commit(reference.commit)
    if commit is None:
        if local and not local.exists():
            raise LabError(f"document repository {reference.repo} does not exist (looked at {local})")
        git.fetch("+refs/*:refs/mirror/*")
        commit = git.commit(reference.commit)
    if commit is None:
        raise LabError(f"{reference.repo} has no commit {reference.commit}")
    return _checked(reference, _read_commit(reference, git, commit), settings)


def local_path(repo: str, taxonomy: Path, origin: Path | None = None) -> Path | None:
    """Resolve `repo` to an absolute local path, which need not exist; None if it is a remote address.

    A relative path starts at the folder `taxonomy`. If that folder was exported from the local repository `origin` and does
    not contain the path, the path starts at `origin` instead.

    Raises:
        LabError: The address is not allowed (see `is_remote`), or the path cannot be resolved.
    """
    try:
        if is_remote(repo):
            return None
        path = (taxonomy / repo).resolve()
        if origin and not (path.is_relative_to(taxonomy.resolve()) and path.exists()):
            path = (origin / repo).resolve()
        return path
    except GitError as error:
        raise LabError(f"document repository {error}") from None
    except (RuntimeError, OSError) as error:
        raise LabError(f"document repository {repo} cannot be found: {error}") from None


def _checked(
    reference: DocumentReference, found: Iterable[File | str], settings: DocumentSettings
) -> tuple[list[File], list[str]]:
    files: list[File] = []
    unread: list[str] = []
    size = 0
    for file in found:
        if isinstance(file, str):
            unread.append(file)
            continue
        size += len(file.raw)
        if size > settings.max_megabytes * 1_000_000:
            raise LabError(f"more than documents.max_megabytes = {settings.max_megabytes} of documents")
        files.append(file)
    if not files:
        others = f"; no reader takes {', '.join(unread[:3])}" if unread else ""
        raise LabError(
            f"{reference.repo} at {reference.commit} has no readable file ({readable_endings()}) that matches "
            f"{', '.join(reference.patterns)}{others}"
        )
    return files, unread


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    return glob.globmatch(path, list(patterns), flags=glob.GLOBSTAR)


def _read_folder(reference: DocumentReference, folder: Path) -> Iterator[File | str]:
    def fail(error: OSError) -> None:
        raise error

    for path in sorted(Path(parent, name) for parent, _, names in os.walk(folder, onerror=fail) for name in names):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and _matches(name, reference.patterns) and path.resolve().is_relative_to(folder):
            if is_readable(name):
                raw = path.read_bytes()
                yield File(name, f"{WORKTREE}:{digest(raw.hex())}", raw)
            else:
                yield name


def _read_commit(reference: DocumentReference, git: Git, commit: str) -> Iterator[File | str]:
    matching = [blob for blob in git.files(commit) if _matches(blob.path, reference.patterns)]
    blobs = [blob for blob in matching if is_readable(blob.path)]
    yield from (_shown(blob.path) for blob in matching if not is_readable(blob.path))
    for blob, raw in zip(blobs, git.contents(blobs), strict=True):
        yield File(_shown(blob.path), commit, raw)


def _shown(path: str) -> str:
    return path.encode("utf-8", errors="surrogateescape").decode("utf-8", errors="replace")
