"""Turn errors of the machine, such as a full disk or missing permissions, into errors that a person can fix."""

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
_MESSAGES = {  # from SQLite and the libraries that write tensors, which raise other errors than OSError
    "No space left on device": errno.ENOSPC,
    "database or disk is full": errno.ENOSPC,
    "attempt to write a readonly database": errno.EROFS,
}
_LEAST_FREE = 1 << 20


def as_lab_error(error: BaseException) -> LabError | None:
    """Return the error as one that a person can fix, or None if it is a defect of the program."""
    return error if isinstance(error, LabError) else refusal(error)


def refusal(error: BaseException) -> LabError | None:
    """Return an error that names what the machine refused, if that caused `error`."""
    home = default_home()
    cause: BaseException | None = error
    while cause:
        number = cause.errno if isinstance(cause, OSError) else None
        number = number or next((each for message, each in _MESSAGES.items() if message in str(cause)), None)
        if number in _REFUSED:
            file = Path(str(cause.filename)) if isinstance(cause, OSError) and cause.filename else home
            return _refused(home if file.is_relative_to(home) else file, number)
        cause = cause.__cause__ or cause.__context__
    return full_disk(home)  # torch does not say why it could not write


def full_disk(home: Path) -> LabError | None:
    """Return an error if the home's disk is full."""
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    return _refused(home, errno.ENOSPC) if shutil.disk_usage(existing).free < _LEAST_FREE else None


def _refused(path: Path, number: int) -> LabError:
    return LabError(f"{path}: {_REFUSED[number]}, and run again: what is finished is kept, and is not done again")
