"""What a machine refuses, a full disk or a folder that cannot be written, told to people as something they can mend."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import default_home

_REFUSED = {
    errno.ENOSPC: "the disk is full; make room on it",
    errno.EDQUOT: "the disk quota is used up; make room, or have it raised",
    errno.EROFS: "the disk is read-only; mount it for writing, or choose another home with --home",
    errno.EACCES: "this user may not read or write it; change its permissions, or choose another home with --home",
}
_MESSAGES = {  # of SQLite and of the libraries that write tensors, which raise errors of their own
    "No space left on device": errno.ENOSPC,
    "database or disk is full": errno.ENOSPC,
    "attempt to write a readonly database": errno.EROFS,
}
_LEAST_FREE = 1 << 20


def as_lab_error(error: BaseException) -> LabError | None:
    """The error as one that a person can mend: itself, or what the machine refused. None for a defect of the program."""
    return error if isinstance(error, LabError) else refusal(error)


def refusal(error: BaseException) -> LabError | None:
    """What the machine refused, if that is why something failed."""
    home = default_home()
    link: BaseException | None = error
    while link:
        number = link.errno if isinstance(link, OSError) else None
        number = number or next((each for message, each in _MESSAGES.items() if message in str(link)), None)
        if number in _REFUSED:
            file = Path(str(link.filename)) if isinstance(link, OSError) and link.filename else home
            return _refused(home if file.is_relative_to(home) else file, number)
        link = link.__cause__ or link.__context__
    return full_disk(home)  # torch does not say why it could not write


def full_disk(home: Path) -> LabError | None:
    """An error that says so if the home's disk is full."""
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    return _refused(home, errno.ENOSPC) if shutil.disk_usage(there).free < _LEAST_FREE else None


def _refused(path: Path, number: int) -> LabError:
    return LabError(f"{path}: {_REFUSED[number]}, and run again: what is finished is kept, and is not done again")
