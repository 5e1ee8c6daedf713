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
from typing import IO, TYPE_CHECKING, Any

from lab_pipeline.core.processes import is_alive, this_process

if TYPE_CHECKING:
    import pyarrow as pa

_SCRATCH = ".writing-"
_SCRATCH_LOCK = ".lock-of-writer"
_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))
_LINE = json.JSONEncoder(ensure_ascii=False)


def digest(value: Any) -> str:
    """Return the first 20 hex digits of the SHA-256 of a JSON-serialisable value's canonical JSON."""
    return hashlib.sha256(_CANONICAL.encode(value).encode()).hexdigest()[:20]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digest(folder: Path, leaving_out: tuple[str, ...] = ()) -> str:
    """Return the `digest` of relative path and content of all files in a folder, at any depth.

    Args:
        leaving_out: Names of files and folders directly in `folder` to skip.
    """
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and path.relative_to(folder).parts[0] not in leaving_out
    )
    return digest([[str(path.relative_to(folder)), file_digest(path)] for path in files])


def link_or_copy(source: str, target: str) -> None:
    """Hard-link a file, which takes no space; copy it if the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a scratch path at which to write a file or a new folder, so that `path` never holds a part of it.

    At the end of the `with` block, the scratch is flushed to disk and renamed to `path`; an earlier file there is
    replaced, an earlier folder must be empty. If the block fails, the scratch is removed. Missing parents are created.
    """
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
    """Make a scratch folder that is locked until the returned file is closed; try again if `clear_scratch` was faster."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{_SCRATCH}{this_process()}-", dir=parent))
        with suppress(FileNotFoundError):  # it was cleared before it had a lock file
            lock = (folder / _SCRATCH_LOCK).open("wb")
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.fstat(lock.fileno()).st_nlink:
                return folder, lock
            lock.close()  # it was cleared before the lock was held


def clear_scratch(root: Path) -> None:
    """Remove the scratch folders that killed processes left below `root`, at any depth.

    A writer locks its scratch folder until it has finished or dies, so a folder whose lock can be taken is abandoned. Unlike
    process ids, `flock` works across pods and machines on a shared volume. A child that the writer forked, and that started no
    other program, holds the lock too, so the folder stays until that child ends.
    """
    for parent, folders, _ in os.walk(root):  # unlike `rglob`, it tolerates folders that vanish
        for name in [name for name in folders if name.startswith(_SCRATCH)]:
            folders.remove(name)
            writer = name.removeprefix(_SCRATCH).rpartition("-")[0]
            # Skip live writers: on NFS `flock` is per process, so this process could wrongly take its own threads' locks.
            if is_alive(writer):
                continue
            # An error means that the folder is locked, gone, or another user's.
            with suppress(OSError), Path(parent, name, _SCRATCH_LOCK).open("ab") as lock:
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
    """Write rows as a Parquet file under `schema`, whole or not at all; an earlier file at `path` is replaced.

    Raises:
        ValueError: A row lacks a column of the schema, has a column that is not in it, or a value of a wrong type.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

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
    """Read the rows of a Parquet file; the caller annotates their type: `rows: list[CuratedRow] = read_rows(path)`."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:  # pq.read_table would import pandas
        return file.read().to_pylist()


def append_line(path: Path, value: Any) -> None:
    """Append a value as one line of JSON, as `add_line` does, and wait until it is on disk."""
    add_line(path, value)
    flush(path)


def add_line(path: Path, value: Any) -> None:
    """Append a value as one line of JSON, on a new line even if a crash or a full disk cut the last line short.

    The file and its folder are created if missing. The line is not flushed: it survives the process, but not a power cut.
    """
    line = _LINE.encode(value).encode() + b"\n"
    try:
        file = path.open("ab+")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab+")
    with file:
        end = file.tell()
        if end and os.pread(file.fileno(), 1, end - 1) != b"\n":
            file.write(b"\n")
        file.write(line)


def flush(path: Path) -> None:
    """Wait until the contents of a file or folder are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_lines(path: Path) -> list[Any]:
    """Return the values that `append_line` wrote to a file, as `each_line` does; an empty list if the file does not exist."""
    return list(each_line(path)) if path.exists() else []


def each_line(path: Path) -> Iterator[Any]:
    """Yield the values that `append_line` or `add_line` wrote to a file.

    Lines that are not valid JSON, such as those that a crash cut short, are skipped.
    """
    with path.open("rb") as file:
        for line in file:
            with suppress(ValueError):
                yield json.loads(line)
