"""Find the leaves of a taxonomy, and files that were meant to be leaves but are named or placed wrongly."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lab_pipeline.taxonomy.problem import Problem

BRANCHES = ("knowledge", "compositional_skills", "foundational_skills")
QNA = "qna.yaml"
_MEANT = ("qna.yaml", "qna.yml")


def find_leaves(taxonomy: Path) -> list[str]:
    """List the keys of all leaves, sorted: the paths, relative to `taxonomy`, of folders with a `qna.yaml`.

    Symbolic links are not followed. A folder name that is not UTF-8 gets replacement characters, so its leaf is listed but
    cannot be read.
    """
    return sorted(key for branch in BRANCHES for key, name in _files(taxonomy, branch) if name == QNA)


def find_misnamed(taxonomy: Path) -> dict[str, list[Problem]]:
    """Map folders, as keys, to the problems of files that look like a `qna.yaml` but are read by nobody, such as `qna.yml`.

    Hidden folders are left out. If the folder is a leaf, such a file beside its `qna.yaml` is only warned of.
    """
    found: dict[str, list[Problem]] = {}
    for key, name in _files(taxonomy, ""):
        branch, _, rest = key.partition("/")
        if (branch in BRANCHES and name == QNA) or any(part.startswith(".") for part in key.split("/")):
            continue
        file = name if key == "" else f"{key}/{name}"
        right = next((each for each in BRANCHES if each == branch.casefold().replace("-", "_").replace(" ", "_")), None)
        if right is None:
            rule, mend = "outside-branches", f"leaves are below {', '.join(f'{each}/' for each in BRANCHES)}; move it there"
        else:
            rule = "name-case" if name.casefold() == QNA else "name-extension"
            mend = f"rename it to {right}/{f'{rest}/' if rest else ''}{QNA}"
        beside = branch in BRANCHES and (taxonomy / key / QNA).is_file()
        message = f"nobody reads this file; {'remove it, ' + QNA + ' beside it counts' if beside else mend}"
        found.setdefault(key or ".", []).append(Problem(file, 1, "warning" if beside else "error", message, rule=rule))
    return found


def find_all(taxonomy: Path) -> dict[str, list[Problem]]:
    """Map each leaf, and each folder with a misnamed file, to the problems of its misnamed files, in the order of the keys."""
    misnamed = find_misnamed(taxonomy)
    return {key: misnamed.get(key, []) for key in sorted({*find_leaves(taxonomy), *misnamed})}


def _files(taxonomy: Path, below: str) -> Iterator[tuple[str, str]]:
    """Yield folder (relative to `taxonomy`, '' for itself) and name of each file that may be meant as a `qna.yaml`."""
    top = taxonomy / below
    if below and top.is_symlink():
        return
    for folder, subfolders, names in os.walk(top):
        subfolders[:] = [name for name in subfolders if name != ".git"]
        meant = [name for name in names if name.casefold() in _MEANT]
        for name in meant:
            path = Path(folder, name)
            if not path.is_symlink():
                key = os.fsencode(path.parent.relative_to(taxonomy)).decode("utf-8", errors="replace")
                yield "" if key == "." else key, name
