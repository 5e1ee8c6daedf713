"""Compare the leaves of a taxonomy's work tree with those of a commit, as a pull request would show them."""

from __future__ import annotations

import os
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from wcmatch import glob

from lab_pipeline.core.errors import LabError
from lab_pipeline.taxonomy.documents.repository import WORKTREE
from lab_pipeline.taxonomy.find import BRANCHES
from lab_pipeline.taxonomy.leaf import ATTRIBUTION, QNA, read_leaf

_SECONDS = 300


@dataclass(frozen=True)
class Changes:
    """The leaves that differ from a base, as sorted keys. A renamed leaf is removed under its old key and added under its new
    one."""

    base: str
    """Full id of the commit that was compared with."""
    added: list[str]
    modified: list[str]
    removed: list[str]


def find_changes(taxonomy: Path, ref: str) -> Changes:
    """Return the leaves that the work tree adds, modifies or removes since it left `ref`.

    They are compared with the merge base of `ref` and HEAD, so what was committed to `ref` since then does not count. The work
    tree is what git knows of it: files that are not committed yet and untracked files count, ignored ones do not. A leaf is
    modified if its `qna.yaml`, which names the commit of its documents, or its `attribution.txt` is; or if a document is that
    it reads from a plain folder of the taxonomy (commit `worktree`). Documents elsewhere are not looked at.

    Args:
        taxonomy: The folder of the taxonomy: a work tree, or a folder in one.
        ref: A branch, tag or commit.

    Raises:
        LabError: The folder is in no work tree of git, has no such ref, shares no known commit with it, or has no leaf.
    """
    git = _WorkTree(taxonomy)
    base = git.base(ref)
    before = git.regular_files(base)
    differing, gone = git.differences(base)
    changed = {path for path in differing if _is_of_leaf(path)}
    after = (before - changed) | {path for path in changed - gone if _may_be_regular(taxonomy / os.fsdecode(path))}
    leaves_before, leaves_after = _leaves(before), _leaves(after)
    if not leaves_before | leaves_after:
        raise LabError(f"{taxonomy}: no leaf, neither now nor at {ref!r}; give the folder that holds {', '.join(BRANCHES)}")
    touched = {path.rpartition(b"/")[0] for path in changed}
    if others := [os.fsdecode(path) for path in differing - changed]:
        touched |= {leaf for leaf in leaves_after - touched if _reads_one_of(taxonomy, os.fsdecode(leaf), others)}
    return Changes(
        base,
        added=_keys(leaves_after - leaves_before),
        modified=_keys(leaves_before & leaves_after & touched),
        removed=_keys(leaves_before - leaves_after),
    )


class _WorkTree:
    """Runs git in a folder of a work tree, with the user's settings; all paths are relative to the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not folder.is_dir():
            raise LabError(f"{folder}: no such folder")
        try:
            inside = self("rev-parse", "--is-inside-work-tree") == b"true\n"
        except LabError as error:
            raise LabError(f"{folder}: not in a git repository ({error})") from None
        if not inside:
            raise LabError(f"{folder}: a bare repository has no work tree to compare; clone it first")

    def __call__(self, *arguments: str) -> bytes:
        """Run one git command, and return what it prints.

        Raises:
            LabError: The command fails or takes too long.
        """
        command = ["git", "--no-optional-locks", "-C", str(self.folder), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, timeout=_SECONDS)
        except FileNotFoundError:
            raise LabError("git is not installed") from None
        except subprocess.TimeoutExpired:
            raise LabError(f"git {arguments[0]} took more than {_SECONDS} s") from None
        if done.returncode:
            said = " ".join(done.stderr.decode("utf-8", errors="replace").split())
            raise LabError(f"git {arguments[0]}: {said[:300] or f'exit {done.returncode}'}")
        return done.stdout

    def commit(self, name: str) -> str | None:
        """Resolve the name of a commit to its id; None if there is none."""
        try:
            return self("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").decode().strip()
        except LabError:
            return None

    def base(self, ref: str) -> str:
        """Return the id of the merge base of a ref and HEAD.

        Raises:
            LabError: There is no such ref, no commit yet, or no merge base.
        """
        shallow = self("rev-parse", "--is-shallow-repository") == b"true\n"
        advice = "; this clone is shallow: run `git fetch --unshallow` (in GitHub's checkout action: `fetch-depth: 0`)"
        advice = advice if shallow else ""
        commit = self.commit(ref)
        if commit is None:
            advice = advice or ("; run `git fetch` first" if "/" in ref else "")
            raise LabError(f"{self.folder}: no branch, tag or commit {ref!r}{advice}")
        if self.commit("HEAD") is None:
            raise LabError(f"{self.folder}: HEAD has no commit yet, so it shares none with {ref!r}")
        try:
            return self("merge-base", commit, "HEAD").decode().strip()
        except LabError:
            raise LabError(f"{self.folder}: {ref!r} and HEAD share no commit{advice}") from None

    def regular_files(self, commit: str) -> set[bytes]:
        """Return the paths of the files of leaves in a commit, without symbolic links and submodules."""
        entries = (entry.partition(b"\t") for entry in self("ls-tree", "-r", "-z", commit).split(b"\0"))
        return {path for head, _, path in entries if head.startswith(b"100") and _is_of_leaf(path)}

    def differences(self, commit: str) -> tuple[set[bytes], set[bytes]]:
        """Return the paths that differ between a commit and the work tree, and those of them that the work tree lacks."""
        # Options against the user's settings: diff.renames, diff.external, color.diff and others would change the output.
        options = ["--name-status", "-z", "--no-renames", "--no-ext-diff", "--no-color", "--relative"]
        fields = self("diff", *options, commit, "--", ".").split(b"\0")[:-1]
        status = {path: letter for letter, path in zip(fields[::2], fields[1::2], strict=True)}
        untracked = set(self("ls-files", "--others", "--exclude-standard", "-z").split(b"\0")[:-1])
        unmerged = {path for path, letter in status.items() if letter == b"U"}
        gone = {path for path, letter in status.items() if letter == b"D"}
        gone |= {path for path in unmerged if not os.path.lexists(self.folder / os.fsdecode(path))}
        same = {path for path in gone & untracked if self._has_content(path, commit)}  # only taken out of the index
        return (status.keys() | untracked) - same, gone - untracked

    def _has_content(self, path: bytes, commit: str) -> bool:
        """Tell whether a path of the work tree is a regular file with the content that it has in a commit."""
        name = os.fsdecode(path)
        regular = _may_be_regular(self.folder / name)
        return regular and self("hash-object", "--", name) == self("rev-parse", f"{commit}:./{name}")


def _is_of_leaf(path: bytes) -> bool:
    parts = path.decode(errors="replace").split("/")
    return parts[0] in BRANCHES and parts[-1] in (QNA, ATTRIBUTION)


def _reads_one_of(taxonomy: Path, leaf: str, paths: list[str]) -> bool:
    """Tell whether a leaf reads one of some files of the taxonomy as a document in a plain folder."""
    content = read_leaf(taxonomy, leaf).leaf
    document = content.document if content else None
    if document is None or document.commit != WORKTREE:
        return False
    folder = Path(os.path.normpath(taxonomy / document.repo))
    inside = [os.path.relpath(path, folder) for each in paths if (path := taxonomy / each).is_relative_to(folder)]
    return any(glob.globmatch(path, list(document.patterns), flags=glob.GLOBSTAR) for path in inside)


def _may_be_regular(path: Path) -> bool:
    """Tell whether a path is a regular file, or is not there, as a file that git knows outside of a sparse checkout."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return True


def _leaves(files: set[bytes]) -> set[bytes]:
    """Return the folders with a `qna.yaml`."""
    return {path.rpartition(b"/")[0] for path in files if path.endswith(b"/" + QNA.encode())}


def _keys(leaves: set[bytes]) -> list[str]:
    return sorted(leaf.decode("utf-8", errors="replace") for leaf in leaves)
