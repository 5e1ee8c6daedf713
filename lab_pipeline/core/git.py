"""Read untrusted git repositories through bare mirrors, without ever checking out their files.

So no hook, filter, submodule or symbolic link of a repository takes effect. The git settings of user and system are ignored.
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
"""Environment variables passed on to git; they say where programs, keys and proxies are."""

_MOST_LISTED = 1 << 24
"""Maximum bytes of a commit's list of files (about 150,000 files): a few kilobytes of nested trees can list billions."""


class GitError(LabError):
    """An address that is not allowed, or a git command that failed, took too long or printed too much."""


@dataclass(frozen=True)
class Tip:
    """What a ref of a repository resolved to when the repository was asked."""

    name: str
    """Name of the ref as the repository lists it, such as `refs/heads/main` or `HEAD`; '' for a commit id."""
    branch: str
    """The ref as it was asked for; for HEAD, the name of the branch that HEAD points to."""
    id: str
    """Full commit id; for an annotated tag in a git bundle, which does not list the commit, the id of the tag itself."""


@dataclass(frozen=True)
class Blob:
    """A regular file of a commit; `id` and `size` (in bytes) are those of its content."""

    path: str
    """Path in the commit's tree, which may be hostile, as with `..`; bytes that are not UTF-8 are surrogate-escaped."""
    id: str
    size: int


def is_remote(address: str) -> bool:
    """Return True for a remote address with an allowed transport (https, ssh, user@host:path), and False for a local path.

    Raises:
        GitError: The address uses another transport, holds a password, is no valid URL, or looks like an option.
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
    """Run git commands on the bare mirror of `address`. `fetch` alone creates it. A command fails after `timeout_seconds`."""

    def __init__(self, mirror: Path, address: str, timeout_seconds: int) -> None:
        self.mirror = mirror
        self.address = address
        self.timeout_seconds = timeout_seconds
        remote = is_remote(address)
        # A local repository is served by a second git process, which without this would refuse one that another user owns.
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
        """Run one git command and return what it prints.

        Raises:
            GitError: The command fails, takes longer than `timeout_seconds`, or prints more than `limit` bytes.
        """
        with self._output(arguments) as output:
            printed = output.read(limit + 1)
            if len(printed) > limit:
                raise GitError(f"git {arguments[0]} printed more than {limit >> 20} MiB")
        return printed

    @contextmanager
    def _output(self, arguments: tuple[str, ...], stdin_text: bytes = b"") -> Iterator[IO[bytes]]:
        """Yield the output of a git command as a stream; if the `with` block fails, git and its children are killed.

        Raises:
            GitError: The command fails, or takes longer than `timeout_seconds`.
        """
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
                start_new_session=True,  # so that git's ssh is killed with git, and has no terminal to ask at
            )
            assert process.stdout

            def stop() -> None:
                if process.returncode is None:  # once git was reaped, another process may have its id
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
        """Resolve a commit id or ref of the mirror to a full commit id; None if the mirror lacks it, or git fails."""
        if not self.mirror.exists() or name.startswith("-"):
            return None
        try:
            return self("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").decode().strip()
        except GitError:
            return None

    def tip(self, ref: str) -> Tip | None:
        """Ask the repository at `address`, not the mirror, what `ref` resolves to; None if it has no such ref.

        The ref may be HEAD, a branch, a tag, or a full commit id; the latter is returned without asking.

        Raises:
            GitError: The repository cannot be reached in time.
        """
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
        """Fetch `refspec` from the repository at `address` into the mirror, which is created if missing.

        Raises:
            GitError: The repository cannot be reached in time, or lacks the ref.
        """
        self.mirror.parent.mkdir(parents=True, exist_ok=True)
        self("init", "--quiet", "--bare", str(self.mirror))  # also repairs a mirror whose creation was interrupted
        options = ["--quiet", "--no-recurse-submodules", "--no-tags", *self._other_end, "--end-of-options"]
        self("fetch", *options, self.address, refspec)

    def descends(self, commit: str, ancestor: str) -> bool:
        """Tell whether `ancestor` is an ancestor of `commit`, or the same commit; False if the mirror lacks one of them."""
        try:
            return self("merge-base", ancestor, commit).decode().strip() == ancestor
        except GitError:  # no common ancestor, or one of them is gone
            return False

    def files(self, commit: str) -> list[Blob]:
        """List the regular files of a commit at any depth, in git's order; symbolic links and submodules are skipped.

        Raises:
            GitError: The commit lists too many files, or the mirror is damaged.
        """
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
        """Yield the content of each blob in the given order, all read from one git process."""
        with self._output(("cat-file", "--batch"), "".join(f"{blob.id}\n" for blob in blobs).encode()) as output:
            for blob in blobs:
                output.readline()  # git's header: id, type, size
                yield output.read(blob.size)
                output.readline()
