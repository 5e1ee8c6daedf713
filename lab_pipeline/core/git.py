"""Read untrusted git repositories from bare mirrors, without ever checking them out.

So no hook, filter, submodule or symbolic link of the remote takes effect. The user's git settings are ignored.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from lab_pipeline.core.errors import LabError

_PASSED_ON = ("PATH", "HOME", "SSH_AUTH_SOCK", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY")
"""Environment variables passed on to git, which say where keys and proxies are."""

_MOST_LISTED = 1 << 24
"""Limit of a tree's listing in bytes, about 150,000 files: a few kilobytes of nested trees can expand to billions."""


class GitError(LabError):
    """Git refused, failed or took too long; the message holds git's own."""


@dataclass(frozen=True)
class Tip:
    """What a ref resolves to now."""

    name: str
    """Full name of the ref, '' for a commit id."""
    branch: str
    """Short name of the ref; for HEAD, the branch."""
    id: str
    """Commit id; for an annotated tag of a bundle, the tag's own id."""


@dataclass(frozen=True)
class Blob:
    """A regular file of a commit."""

    path: str
    """Path in the tree, possibly hostile; bytes that are not UTF-8 are surrogate-escaped."""
    id: str
    size: int


def is_remote(address: str) -> bool:
    """Tell whether an address is remote, with an allowed transport (https, ssh, user@host:path), or a local path.

    Raises:
        GitError: It is neither, or holds a password.
    """
    if address.startswith("-"):
        raise GitError(f"{address!r} looks like an option, not an address")
    try:
        url = urlsplit(address)
    except ValueError as error:
        raise GitError(f"{address} is no address: {error}") from None
    if url.password:
        raise GitError(f"a URL of {url.hostname} holds a password, which logs would show; use an ssh key or ~/.netrc instead")
    if url.scheme in ("https", "ssh"):
        return True
    if "://" in address or "::" in address:
        raise GitError(f"{address} uses a transport that is not allowed; use https, ssh, or a path")
    user, at, path = address.partition("@")
    return bool(at) and ":" in path and "/" not in user


class Git:
    """Runs git on a bare mirror of the repository at `address`."""

    def __init__(self, mirror: Path, address: str, timeout_seconds: int) -> None:
        self.mirror = mirror
        self.address = address
        self.timeout_seconds = timeout_seconds
        remote = is_remote(address)
        # For a local path, the other end is a git process too, which would refuse a repository that another user owns.
        self._other_end = [] if remote else ["--upload-pack=git -c safe.directory=* upload-pack"]
        self._environment = {
            **{name: os.environ[name] for name in _PASSED_ON if name in os.environ},
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
            "GIT_ALLOW_PROTOCOL": "https:ssh" if remote else "file",
        }

    def __call__(self, *arguments: str, limit: int = 1 << 30) -> bytes:
        """Run one git command and return its output of at most `limit` bytes."""
        with self._output(arguments) as output:
            printed = output.read(limit + 1)
            if len(printed) > limit:
                raise GitError(f"git {arguments[0]} printed more than {limit >> 20} MiB")
        return printed

    @contextmanager
    def _output(self, arguments: tuple[str, ...], stdin_text: bytes = b"") -> Iterator[IO[bytes]]:
        """Stream the output of a git command; git and its children always end with the block."""
        timed_out = threading.Event()
        with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stderr:
            stdin.write(stdin_text)
            stdin.seek(0)
            process = subprocess.Popen(
                ["git", f"--git-dir={self.mirror}", "-c", "core.hooksPath=/dev/null", "-c", "gc.autoDetach=false", *arguments],
                env=self._environment,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,  # its ssh ends with it, and cannot ask at the terminal
            )
            assert process.stdout

            def stop() -> None:
                if process.returncode is None:  # after it was reaped, another process may have its id
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)

            def time_out() -> None:
                timed_out.set()
                stop()

            timer = threading.Timer(self.timeout_seconds, time_out)
            timer.start()
            try:
                yield process.stdout
                process.wait()
            finally:
                timer.cancel()
                stop()
                process.stdout.close()
                process.wait()
            if timed_out.is_set():
                raise GitError(f"git {arguments[0]} took more than {self.timeout_seconds} s")
            if process.returncode:
                stderr.seek(0)
                message = " ".join(stderr.read(10_000).decode("utf-8", errors="replace").split())
                raise GitError(f"git {arguments[0]} failed: {message[:300] or f'exit {process.returncode}'}")

    def commit(self, name: str) -> str | None:
        """Resolve `name` to a full commit id, or None if the mirror has no such commit."""
        if not self.mirror.exists() or name.startswith("-"):
            return None
        try:
            return self("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").decode().strip()
        except GitError:
            return None

    def tip(self, ref: str) -> Tip | None:
        """Resolve `ref` (HEAD, branch, tag, full commit id) at the address, without the mirror; None if there is none."""
        if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", ref):
            return Tip("", ref, ref)
        options = ["--symref", *self._other_end, "--end-of-options"]
        found, targets = {}, {}
        for line in self("ls-remote", *options, self.address, ref, f"{ref}^{{}}").decode("utf-8", "replace").splitlines():
            value, _, name = line.partition("\t")
            if value.startswith("ref: "):
                targets[name] = value.removeprefix("ref: refs/heads/")
            else:
                found[name] = value
        for name in (ref, f"refs/{ref}", f"refs/tags/{ref}", f"refs/heads/{ref}"):
            if name in found:
                return Tip(name, targets.get(name, ref), found.get(f"{name}^{{}}", found[name]))
        return None

    def fetch(self, refspec: str) -> None:
        """Fetch from the address into the mirror, which is created if missing."""
        self.mirror.parent.mkdir(parents=True, exist_ok=True)
        self("init", "--quiet", "--bare", str(self.mirror))  # also repairs a mirror whose creation was interrupted
        options = ["--quiet", "--no-recurse-submodules", "--no-tags", *self._other_end, "--end-of-options"]
        self("fetch", *options, self.address, refspec)

    def descends(self, commit: str, ancestor: str) -> bool:
        """Tell whether `ancestor` is an ancestor of `commit`, or the same commit."""
        try:
            return self("merge-base", ancestor, commit).decode().strip() == ancestor
        except GitError:  # no common ancestor, or one of them is gone
            return False

    def files(self, commit: str) -> list[Blob]:
        """List the regular files of a commit, without symbolic links and submodules."""
        found = []
        for entry in self("ls-tree", "-r", "-z", "-l", commit, limit=_MOST_LISTED).split(b"\0"):
            head, _, path = entry.partition(b"\t")
            if head.startswith(b"100"):
                _, _, blob, size = head.split()
                if not size.isdigit():
                    raise GitError(f"{self.mirror} is damaged; remove this folder, and it is fetched again")
                found.append(Blob(os.fsdecode(path), blob.decode(), int(size)))
        return found

    def contents(self, blobs: list[Blob]) -> Iterator[bytes]:
        """Yield the bytes of each blob, in order, from one git process."""
        with self._output(("cat-file", "--batch"), "".join(f"{blob.id}\n" for blob in blobs).encode()) as output:
            for blob in blobs:
                output.readline()  # id, type, size
                yield output.read(blob.size)
                output.readline()
