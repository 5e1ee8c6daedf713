"""Write files atomically, read them, and hash their contents."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from lab_pipeline.core.processes import is_alive, this_process

_SCRATCH = ".writing-"
_SCRATCH_LOCK = ".lock-of-writer"
_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def digest(value: Any) -> str:
    """Hash a JSON-serialisable value (canonical JSON, SHA-256, first 20 hex digits)."""
    return hashlib.sha256(_CANONICAL.encode(value).encode()).hexdigest()[:20]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digest(folder: Path, leaving_out: tuple[str, ...] = ()) -> str:
    """Hash a folder's relative file names and bytes, except for the named files and folders at its top."""
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and path.relative_to(folder).parts[0] not in leaving_out
    )
    return digest([[str(path.relative_to(folder)), file_digest(path)] for path in files])


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a scratch path for a file or a new folder; on success flush it and rename it to `path`, on failure remove it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch_folder, lock = _locked_scratch(path.parent)
    scratch = scratch_folder / path.name
    try:
        yield scratch
        for written in [scratch, *scratch.rglob("*")]:
            if written.is_file():
                flush(written)
        scratch.rename(path)
        flush(path.parent)
    finally:
        shutil.rmtree(scratch_folder, ignore_errors=True)
        lock.close()


def _locked_scratch(parent: Path) -> tuple[Path, IO[bytes]]:
    """Make a scratch folder and lock it until the returned file is closed; try again if it is cleared before it is locked."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{_SCRATCH}{this_process()}-", dir=parent))
        with suppress(FileNotFoundError):  # cleared before it had a lock file
            lock = (folder / _SCRATCH_LOCK).open("wb")
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.fstat(lock.fileno()).st_nlink:
                return folder, lock
            lock.close()  # cleared before the lock was held


def clear_scratch(root: Path) -> None:
    """Remove scratch folders of killed processes below a folder.

    A writer locks its scratch folder for as long as it lives, so if the lock can be taken, the writer is dead. Unlike process
    ids, `flock` works across pods and machines on a shared volume. A child that a writer forked, without starting another
    program, holds the lock too: its folder is cleared after the child ends.
    """
    for parent, folders, _ in os.walk(root):  # unlike `rglob`, it tolerates folders that vanish
        for name in [name for name in folders if name.startswith(_SCRATCH)]:
            folders.remove(name)
            writer = name.removeprefix(_SCRATCH).rpartition("-")[0]
            if is_alive(writer):  # NFS locks are per process, so this one would get the locks of its own threads
                continue
            with suppress(OSError), Path(parent, name, _SCRATCH_LOCK).open("ab") as lock:  # else locked, gone or not ours
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(Path(parent, name), ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    with written_whole(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
    """Write rows as Parquet under `schema`; a row with a missing, unknown or ill-typed column raises `ValueError`."""
    names = set(schema.names)
    for number, row in enumerate(rows):
        if row.keys() != names:
            raise ValueError(f"{path.name}, row {number}: columns differ from the schema in {row.keys() ^ names}")
    try:
        table = pa.Table.from_pylist(rows, schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise ValueError(f"{path.name}: {error}") from error
    with written_whole(path) as scratch:
        pq.write_table(table, scratch)


def read_rows(path: Path) -> list[Any]:
    """Read the rows of a Parquet file; the caller says by which schema, as in `rows: list[CuratedRow] = read_rows(path)`."""
    return pq.read_table(path).to_pylist()


def append_line(path: Path, value: Any) -> None:
    """Append one JSON line and flush it to disk, on a new line even if a crash or a full disk cut the last one short."""
    add_line(path, value)
    flush(path)


def add_line(path: Path, value: Any) -> None:
    """Append a line without flushing: it survives the process, but not a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(value, ensure_ascii=False).encode() + b"\n")


def flush(path: Path) -> None:
    """Wait until the contents of a file or folder are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_lines(path: Path) -> list[Any]:
    """Read the lines that `append_line` wrote; skip incomplete ones, and return none if there is no file."""
    if not path.exists():
        return []
    values = []
    for line in path.read_bytes().split(b"\n"):
        with suppress(ValueError):
            values.append(json.loads(line))
    return values
