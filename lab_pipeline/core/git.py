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
from urllib.parse import unquote, urlsplit

from lab_pipeline.core.errors import LabError

_PASSED_ON = ("PATH", "HOME", "SSH_AUTH_SOCK", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY")
"""Environment variables passed on to git; they say where programs, keys and proxies are."""

_FULL_ID = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
_ABBREVIATED_ID = re.compile("[0-9a-fA-F]{4,64}")

_MOST_LISTED = 1 << 24
"""Maximum bytes of a commit's list of files (about 150,000 files): a few kilobytes of nested trees can list billions."""


class GitError(LabError):
    """An address that is not allowed, or a git command that failed, took too long or printed too much."""

    def __init__(self, message: str, printed: str = "") -> None:
        super().__init__(message)
        self.printed = printed
        """All that git printed to standard error, of which the message quotes the beginning."""


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
    """0 if a partial clone lacks the content; reading it then is an error."""


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
        here = f", here {unquote(url.path)}" if url.scheme == "file" else ""
        raise GitError(f"{address} uses a transport that is not allowed; use https, ssh, or a path{here}")
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
                raise GitError(f"git {arguments[0]} failed: {message[:300] or f'exit {process.returncode}'}", message)

    def commit(self, name: str) -> str | None:
        """Resolve a commit id, full or abbreviated, to the full id; None if the mirror lacks it, or git fails.

        Raises:
            GitError: Several commits begin with the id; or the name is that of a branch or tag of the repository.
        """
        if not self.mirror.exists():
            return None
        if _ABBREVIATED_ID.fullmatch(name):
            with suppress(GitError):
                return self("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").decode().strip()
            if alike := self._commits_that_begin_with(name):
                raise GitError(f"{name} is the beginning of several commit ids; write one of them in full: {', '.join(alike)}")
        if not _FULL_ID.fullmatch(name):
            tip = None
            with suppress(GitError):  # out of reach, which the caller notices by fetching
                tip = self.tip(name)
            if tip:
                kind = "tag" if tip.name.startswith("refs/tags/") else "branch"
                raise GitError(f"{name} is a {kind} of {self.address}, which may move; write the commit's id, now {tip.id}")
        return None

    def _commits_that_begin_with(self, name: str) -> list[str]:
        """List the first few of the commits whose ids begin with `name`."""
        with suppress(GitError):
            ids = self("rev-parse", f"--disambiguate={name}").split()[:100]
            with self._output(("cat-file", "--batch-check"), b"\n".join([*ids, b""])) as output:
                found = output.read().decode().splitlines()
            return [line.split()[0] for line in found if line.split()[1] == "commit"][:5]
        return []

    def tip(self, ref: str) -> Tip | None:
        """Ask the repository at `address`, not the mirror, what `ref` resolves to; None if it has no such ref.

        The ref may be HEAD, a branch, a tag, or a full commit id; the latter is returned without asking.

        Raises:
            GitError: The repository cannot be reached in time.
        """
        if _FULL_ID.fullmatch(ref):
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

        A local partial clone has not all content that a fetch would send. Its objects are not copied: the mirror refers to
        them, so that what the clone has can be read as long as it is there.

        Raises:
            GitError: The repository cannot be reached in time, or lacks the ref.
        """
        self.mirror.parent.mkdir(parents=True, exist_ok=True)
        made = (self.mirror / "HEAD").exists()  # git refuses to give an existing mirror a format
        # also repairs a mirror whose creation was interrupted
        self("init", "--quiet", "--bare", *([] if made else [f"--object-format={self._object_format()}"]), str(self.mirror))
        if objects := self._partial_objects():
            self._borrowed.write_text(f"{objects}\n", encoding="utf-8")
            return
        options = ["--quiet", "--no-recurse-submodules", "--no-tags", "--update-shallow", *self._other_end, "--end-of-options"]
        try:
            self("fetch", *options, self.address, refspec)
        except GitError as error:
            raise self._explained(error) from None

    def _explained(self, error: GitError) -> GitError:
        """Say what to do where git's own message on a failed fetch does not."""
        if "promisor" in error.printed or "lazy fetching disabled" in error.printed:  # their order is that of two processes
            return GitError(f"{self.address} is a partial clone that lacks files; name a complete clone")
        if "mismatched algorithms" in error.printed:
            return GitError(f"{self.mirror} has another object format than {self.address}; remove this folder to fetch anew")
        return error

    def _object_format(self) -> str:
        """Ask the repository at `address` for the hash by which it names objects."""
        listed = self("ls-remote", *self._other_end, "--end-of-options", self.address)
        return "sha256" if re.match(b"[0-9a-f]{64}\t", listed) else "sha1"

    @property
    def _borrowed(self) -> Path:
        return self.mirror / "objects" / "info" / "alternates"

    def _partial_objects(self) -> Path | None:
        """Return the object folder of the repository at `address` if it is a local partial clone, else None."""
        for objects in (Path(self.address, ".git", "objects"), Path(self.address, "objects")):
            if self._other_end and any((objects / "pack").glob("*.promisor")):
                return objects.resolve()
        return None

    def rewritten(self, commit: str, before: str) -> bool:
        """Tell whether `before` is no ancestor of `commit`, as after a forced push.

        Where the mirror lacks a part of the history, as one of a shallow clone does, nothing can be told: False.
        """
        with suppress(GitError):  # no common ancestor, or one of them is gone
            if self("merge-base", before, commit).decode().strip() == before:
                return False
        return not ((self.mirror / "shallow").exists() or self._borrowed.exists())

    def files(self, commit: str) -> list[Blob]:
        """List the regular files of a commit at any depth, in git's order; symbolic links and submodules are skipped.

        Raises:
            GitError: The commit lists too many files, or folders are missing.
        """
        found = []
        for entry in self("ls-tree", "-r", "-z", "-l", commit, limit=_MOST_LISTED).split(b"\0"):
            head, _, path = entry.partition(b"\t")
            if head.startswith(b"100"):
                _, _, blob, size = head.split()
                found.append(Blob(os.fsdecode(path), blob.decode(), int(size) if size.isdigit() else 0))
        return found

    def contents(self, blobs: list[Blob]) -> Iterator[bytes]:
        """Yield the content of each blob in the given order, all read from one git process.

        Raises:
            GitError: The content of a blob is missing.
        """
        with self._output(("cat-file", "--batch"), "".join(f"{blob.id}\n" for blob in blobs).encode()) as output:
            for blob in blobs:
                if not output.readline().endswith(b" %d\n" % blob.size):  # git's header: id, type, size
                    raise self._missing(blob)
                yield output.read(blob.size)
                output.readline()

    def _missing(self, blob: Blob) -> GitError:
        if self._borrowed.exists():
            return GitError(
                f"{self.address} is a partial clone that lacks the content of {blob.path!r}; get all content with "
                f"`git -C {self.address} fetch --refetch --no-filter`, or name a complete clone"
            )
        return GitError(f"{self.mirror} is damaged; remove this folder, and it is fetched again")
