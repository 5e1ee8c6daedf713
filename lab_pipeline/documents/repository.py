"""Reading the documents a leaf refers to, from repositories that strangers name.

Git objects are read from a bare mirror, never checked out: no hook, filter, submodule or symbolic link of the other side
gets a chance to run or to lead anywhere.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from wcmatch import glob

from lab_pipeline.errors import LabError
from lab_pipeline.settings import DocumentSettings
from lab_pipeline.storage import digest
from lab_pipeline.taxonomy.leaf import DocumentReference

WORKTREE = "worktree"
"""A `document.commit` of this word reads a plain local folder as it stands; its content hash then pins it."""

READABLE = (".md", ".txt")
MAX_DEEP_WILDCARDS = 3
"""Each further '**' in a pattern multiplies the time that matching may take."""

_TRANSPORTS = {"https", "ssh"}


class DocumentProblem(LabError):
    """The documents cannot be had; the message says what to mend."""


@dataclass(frozen=True)
class Document:
    """One text file of a document repository."""

    path: str
    commit: str
    """Full commit id, or `worktree:<hash of the bytes>` for a plain folder."""
    text: str


def fetch_documents(reference: DocumentReference, taxonomy: Path, mirrors: Path, settings: DocumentSettings) -> list[Document]:
    """The documents that `reference` names, sorted by path; mirrors of git repositories are kept below `mirrors`.

    A repository already mirrored that holds the commit is not contacted again.

    Raises:
        DocumentProblem: the address is not allowed, cannot be reached, lacks the commit, or matches no readable file.
    """
    for pattern in reference.patterns:
        if pattern.count("**") > MAX_DEEP_WILDCARDS:
            raise DocumentProblem(f"pattern {pattern} has more than {MAX_DEEP_WILDCARDS} '**'")
    local = _local_path(reference.repo, taxonomy)
    if local and not settings.allow_local:
        raise DocumentProblem(f"local document repository {reference.repo} is refused (documents.allow_local is false)")
    if local and local.is_dir() and reference.commit == WORKTREE:
        return _checked(reference, _read_folder(reference, local), settings)
    if reference.commit == WORKTREE:
        raise DocumentProblem(f"commit '{WORKTREE}' needs a plain local folder, which {reference.repo} is not")
    address = str(local) if local else reference.repo
    mirror = mirrors / f"{digest(address)}.git"
    git = _Git(mirror, settings.timeout_seconds, local=local is not None)
    commit = git.commit(reference.commit)
    if commit is None:
        if local and not local.exists():
            raise DocumentProblem(f"document repository {reference.repo} does not exist (looked at {local})")
        git.update(address)
        commit = git.commit(reference.commit)
    if commit is None:
        raise DocumentProblem(f"{reference.repo} has no commit {reference.commit}")
    return _checked(reference, _read_commit(reference, git, commit), settings)


def _local_path(repo: str, taxonomy: Path) -> Path | None:
    """The local path that `repo` means, None for a remote address of an allowed transport."""
    if repo.startswith("-"):
        raise DocumentProblem(f"document repository {repo!r} looks like an option, not an address")
    try:
        scheme = urlsplit(repo).scheme
    except ValueError as error:
        raise DocumentProblem(f"document repository {repo} is no address: {error}") from None
    if scheme in _TRANSPORTS:
        return None
    if "://" in repo or "::" in repo:
        raise DocumentProblem(f"transport of {repo} is not allowed; use https, ssh, or a path")
    user, at, path = repo.partition("@")
    if at and ":" in path and "/" not in user:
        return None
    try:
        return (taxonomy / repo).resolve()
    except (RuntimeError, OSError) as error:
        raise DocumentProblem(f"document repository {repo} cannot be found: {error}") from None


def _checked(reference: DocumentReference, documents: Iterable[Document], settings: DocumentSettings) -> list[Document]:
    found, size = [], 0
    for document in documents:
        size += len(document.text)
        if size > settings.max_megabytes * 1_000_000:
            raise DocumentProblem(f"more than documents.max_megabytes = {settings.max_megabytes} of text")
        if document.text.strip():
            found.append(document)
    if not found:
        raise DocumentProblem(
            f"{reference.repo} at {reference.commit} has no readable file ({', '.join(READABLE)}) that matches "
            f"{', '.join(reference.patterns)}"
        )
    return found


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    return path.lower().endswith(READABLE) and glob.globmatch(path, list(patterns), flags=glob.GLOBSTAR)


def _read_folder(reference: DocumentReference, folder: Path) -> Iterable[Document]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and _matches(name, reference.patterns) and path.resolve().is_relative_to(folder):
            raw = path.read_bytes()
            yield Document(name, f"{WORKTREE}:{digest(raw.hex())}", raw.decode("utf-8", errors="replace"))


def _read_commit(reference: DocumentReference, git: _Git, commit: str) -> Iterable[Document]:
    for entry in git("ls-tree", "-r", "-z", commit).split(b"\0"):
        head, _, raw_name = entry.partition(b"\t")
        name = raw_name.decode("utf-8", errors="replace")
        if head.startswith(b"100") and _matches(name, reference.patterns):
            blob = head.split()[2].decode()
            yield Document(name, commit, git("cat-file", "blob", blob).decode("utf-8", errors="replace"))


class _Git:
    """Git on one bare mirror, deaf to the user's configuration and to everything the other side could ask for."""

    def __init__(self, mirror: Path, timeout_seconds: int, local: bool) -> None:
        self.mirror = mirror
        self.local = local
        self.timeout_seconds = timeout_seconds
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
            "GIT_ALLOW_PROTOCOL": "file" if local else "https:ssh",
        }

    def __call__(self, *arguments: str) -> bytes:
        try:
            done = subprocess.run(
                ["git", "--git-dir", str(self.mirror), "-c", "core.hooksPath=/dev/null", *arguments],
                env=self.environment,
                capture_output=True,
                timeout=self.timeout_seconds,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            raise DocumentProblem(f"git {arguments[0]} took more than {self.timeout_seconds} s") from None
        if done.returncode:
            said = " ".join(done.stderr.decode("utf-8", errors="replace").split())
            raise DocumentProblem(f"git {arguments[0]} failed: {said[:300] or f'exit {done.returncode}'}")
        return done.stdout

    def commit(self, name: str) -> str | None:
        """Full id of the commit that `name` stands for, None if the mirror has none."""
        if not self.mirror.exists() or name.startswith("-"):
            return None
        try:
            return self("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").decode().strip()
        except DocumentProblem:
            return None

    def update(self, address: str) -> None:
        """Fetch all branches and tags of `address` into the mirror."""
        self.mirror.parent.mkdir(parents=True, exist_ok=True)
        self("init", "--quiet", "--bare", str(self.mirror))  # also mends a mirror that was cut off while it was made
        # The other end of a local path is a git of its own, which would refuse a repository that another user owns.
        other_end = ["--upload-pack=git -c safe.directory=* upload-pack"] if self.local else []
        options = ["--quiet", "--no-recurse-submodules", *other_end, "--end-of-options"]
        self("fetch", *options, address, "+refs/*:refs/mirror/*")
