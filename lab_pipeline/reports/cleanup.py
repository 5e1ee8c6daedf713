"""Free disk space: remove weights of candidates and of champions beyond a number, and states of abandoned trainings."""

import shutil
import time
from collections import Counter
from pathlib import Path

from filelock import FileLock, Timeout

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.evaluation.evaluate import last_evaluation
from lab_pipeline.registry.champion import champion_folder, history
from lab_pipeline.training.checkpoint import LEFT_BY_TRAINING

RESUME_DAYS = 7
"""A training counts as abandoned if no file of its saved state has changed for this many days."""


def dispensable(home: Home, keep: int | None = None) -> list[Path]:
    """List the folders that can be removed, sorted: weights of candidates and of old champions, states of abandoned trainings.

    The folders of the current champion and of the last evaluated candidate are never listed.

    Args:
        keep: number of champions to keep, the current one and those that were champion most recently; None keeps all.
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
        for pattern in LEFT_BY_TRAINING
        for folder in home.checkpoints.glob(f"*/{pattern}")
        if max(path.stat().st_mtime for path in [folder, *folder.rglob("*")]) < before
    ]
    return sorted([folder for folder in candidates + champions if folder not in kept] + abandoned)


def freed_bytes(folders: list[Path]) -> int:
    """Count the bytes that removing the folders frees. A file counts only if all its hard links are in these folders."""
    links_found: Counter[tuple[int, int, int]] = Counter()
    for file in (file for folder in folders for file in folder.rglob("*") if file.is_file()):
        status = file.stat()
        links_found[status.st_ino, status.st_nlink, status.st_size] += 1
    return sum(size for (_, links, size), found in links_found.items() if found == links)


def clean_up(home: Home, keep: int | None = None) -> list[Path]:
    """Remove the folders that `dispensable` lists, and of removed candidates also their `candidate.json`; return the folders.

    Raises:
        LabError: a run is working on the home's data sets or model. Then nothing is removed.
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
