"""What a home can do without: merged weights of candidates that did not win, and states of trainings nobody resumed."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from pathlib import Path

from filelock import FileLock, Timeout

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.evaluation.evaluate import last_evaluation
from lab_pipeline.registry.champion import champion_folder, history

RESUME_DAYS = 7
"""A training's state that nothing touched for so long is not resumed any more."""


def dispensable(home: Home, keep: int | None = None) -> list[Path]:
    """Folders that can go. The champion and the last candidate never do, earlier champions only by `keep`.

    Args:
        keep: this many champions stay, the current one and those that were it last; None: all of them.
    """
    names = list(dict.fromkeys(move["id"] for move in reversed(history(home))))[:keep]
    kept = {champion_folder(home, name) for name in names}
    last = last_evaluation(home)
    candidates = [
        folder for folder in home.root.glob("candidates/*/model") if not last or folder.parent.name != last["candidate"]
    ]
    champions = [folder for folder in home.champions.glob("*/") if not folder.name.startswith(".")]
    before = time.time() - RESUME_DAYS * 24 * 3600
    abandoned = [folder for folder in home.checkpoints.glob("*/resume*") if _last_touched(folder) < before]
    return sorted([folder for folder in candidates + champions if folder not in kept] + abandoned)


def freed_bytes(folders: list[Path]) -> int:
    """What removing the folders gives back: a file counts once all its names are gone."""
    names: Counter[tuple[int, int, int]] = Counter()
    for file in (file for folder in folders for file in folder.rglob("*") if file.is_file()):
        status = file.stat()
        names[status.st_ino, status.st_nlink, status.st_size] += 1
    return sum(size for (_, links, size), seen in names.items() if seen == links)


def clean_up(home: Home, keep: int | None = None) -> list[Path]:
    """Remove what is dispensable, and return it.

    Raises:
        LabError: a run works on the home's model.
    """
    try:
        with FileLock(home.root / "tail.lock", timeout=0), FileLock(home.champions / "lock", timeout=0):
            folders = dispensable(home, keep)
            for folder in folders:
                (folder.parent / "candidate.json").unlink(missing_ok=True)  # first: it says that the weights are there
                shutil.rmtree(folder)
            return folders
    except Timeout:
        raise LabError(f"{home.root}: a run works on this home's model; clean up when it has ended") from None


def _last_touched(folder: Path) -> float:
    return max(path.stat().st_mtime for path in [folder, *folder.rglob("*")])
