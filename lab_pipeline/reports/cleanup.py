"""Free disk space: remove weights of candidates that were not promoted, and states of abandoned trainings."""

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
"""A training untouched for so many days counts as abandoned."""


def dispensable(home: Home, keep: int | None = None) -> list[Path]:
    """List the folders that can be removed: never those of the champion and the last candidate.

    Args:
        keep: number of champions to keep, the current one and the latest before it; None keeps all of them.
    """
    newest_first = list(dict.fromkeys(move["id"] for move in reversed(history(home))))
    kept = {champion_folder(home, name) for name in newest_first[:keep]}
    last = last_evaluation(home)
    candidates = [
        folder for folder in home.root.glob("candidates/*/model") if not last or folder.parent.name != last["candidate"]
    ]
    champions = [folder for folder in home.champions.glob("*/") if not folder.name.startswith(".")]
    before = time.time() - RESUME_DAYS * 24 * 3600
    abandoned = [
        folder
        for folder in home.checkpoints.glob("*/resume*")
        if max(path.stat().st_mtime for path in [folder, *folder.rglob("*")]) < before
    ]
    return sorted([folder for folder in candidates + champions if folder not in kept] + abandoned)


def freed_bytes(folders: list[Path]) -> int:
    """Count the bytes that removing the folders frees: those of files whose hard links are all in them."""
    links_found: Counter[tuple[int, int, int]] = Counter()
    for file in (file for folder in folders for file in folder.rglob("*") if file.is_file()):
        status = file.stat()
        links_found[status.st_ino, status.st_nlink, status.st_size] += 1
    return sum(size for (_, links, size), found in links_found.items() if found == links)


def clean_up(home: Home, keep: int | None = None) -> list[Path]:
    """Remove the `dispensable` folders, and return them.

    Raises:
        LabError: a run is working on the home's model.
    """
    try:
        with FileLock(home.root / "tail.lock", timeout=0), FileLock(home.champions / "lock", timeout=0):
            folders = dispensable(home, keep)
            for folder in folders:
                (folder.parent / "candidate.json").unlink(missing_ok=True)  # first, because it says that the weights exist
                shutil.rmtree(folder)
            return folders
    except Timeout:
        raise LabError(f"{home.root}: a run works on this home's model; clean up when it has ended") from None
