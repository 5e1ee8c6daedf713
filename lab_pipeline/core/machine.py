"""Turn errors of the machine, such as a full disk or missing permissions, into errors that a person can fix."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import default_home

_REFUSED = {
    errno.ENOSPC: "the disk is full; make room on it",
    errno.EDQUOT: "the disk quota is used up; make room, or have it raised",
    errno.EROFS: "the disk is read-only; mount it for writing, or choose another home with --home",
    errno.EACCES: "this user may not read or write it; change its permissions, or choose another home with --home",
}
_MESSAGES = {  # SQLite and the libraries that write tensors raise errors that are no OSError
    "No space left on device": errno.ENOSPC,
    "database or disk is full": errno.ENOSPC,
    "attempt to write a readonly database": errno.EROFS,
}
_LEAST_FREE = 1 << 20


def as_lab_error(error: BaseException) -> LabError | None:
    """Return a `LabError` as it is, and any other error as its `refusal`; None if it is a defect of the program."""
    return error if isinstance(error, LabError) else refusal(error)


def refusal(error: BaseException) -> LabError | None:
    """Return a `LabError` that says which file the machine refused, why, and what to do; None if it refused nothing.

    The error and its causes are searched for a full disk, a used-up quota, a read-only disk or a missing permission. If none
    of these is found but the disk of the default home is full, the full disk counts as the cause.
    """
    home = default_home()
    cause: BaseException | None = error
    while cause:
        number = cause.errno if isinstance(cause, OSError) else None
        number = number or next((each for message, each in _MESSAGES.items() if message in str(cause)), None)
        if number in _REFUSED:
            file = Path(str(cause.filename)) if isinstance(cause, OSError) and cause.filename else home
            return _refused(home if file.is_relative_to(home) else file, number)
        cause = cause.__cause__ or cause.__context__
    return full_disk(home)  # torch does not say why it could not write a file


def gpus_gib() -> list[float]:
    """Return the memory of each GPU that a training may use, in GiB, as nvidia-smi reports it; empty without nvidia-smi.

    `CUDA_VISIBLE_DEVICES` and `LAB_GPUS` limit their number. Unlike torch, this takes no second, for sensors ask it.
    """
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    found = [int(line) / 1024 for line in printed.split() if line.isdecimal()]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        found = found[: len([each for each in visible.split(",") if each])]
    wanted = os.environ.get("LAB_GPUS") or ""
    return found[: int(wanted)] if wanted.isdecimal() else found


def full_disk(home: Path) -> LabError | None:
    """Return a `LabError` if the home's disk has less than 1 MiB free, else None."""
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    return _refused(home, errno.ENOSPC) if shutil.disk_usage(existing).free < _LEAST_FREE else None


def _refused(path: Path, number: int) -> LabError:
    return LabError(f"{path}: {_REFUSED[number]}, and run again: what is finished is kept, and is not done again")
