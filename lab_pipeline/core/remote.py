"""Copy folders from and to object stores and other places that fsspec reaches: `s3://`, `gs://`, `az://`, `file://`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.storage import file_digest

_SECRET_FREE = "credentials come from the environment, as the store's own tools read them"


def is_address(name: str) -> bool:
    """Tell whether a name is the address of a folder elsewhere, rather than a path or a hub id."""
    return "://" in name


def download(address: str, folder: Path) -> None:
    """Copy all files below an address to a local folder that does not exist yet.

    Raises:
        LabError: there are none, the store refuses, or a file that arrived is not as long as the store says.
    """
    with _reached(address) as (system, root):
        sizes = {name: details["size"] for name, details in system.find(root, detail=True).items()}
        if not sizes:
            raise LabError(f"{address}: no files there; give the address of a folder")
        for name, size in sizes.items():
            target = folder / name.removeprefix(root).lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            system.get_file(name, str(target))
            if size is not None and target.stat().st_size != size:
                raise LabError(f"{address}: {target.name}: {target.stat().st_size:,} of {size:,} bytes arrived; try again")


def upload(folder: Path, address: str) -> None:
    """Copy all files of a folder to an address, read each back, and compare it byte for byte by its hash.

    Files that are there already with the same content are left alone.

    Raises:
        LabError: the store refuses, or keeps another content than it was given.
    """
    with _reached(address) as (system, root):
        for path in sorted(each for each in folder.rglob("*") if each.is_file()):
            name, wanted = f"{root}/{path.relative_to(folder)}", file_digest(path)
            if _digest_there(system, name) == wanted:
                continue
            system.makedirs(name.rpartition("/")[0], exist_ok=True)
            system.put_file(str(path), name)
            if _digest_there(system, name) != wanted:
                raise LabError(f"{address}: {path.relative_to(folder)}: the store does not hold what it was given; try again")


def write_there(address: str, name: str, content: str) -> None:
    """Write a small file below an address; an earlier one is replaced."""
    with _reached(address) as (system, root):
        system.makedirs(root, exist_ok=True)
        system.pipe_file(f"{root}/{name}", content.encode())


@contextmanager
def _reached(address: str) -> Iterator[tuple[Any, str]]:
    """Yield the file system of an address and the path there; turn what stores raise into a `LabError`."""
    import fsspec

    try:
        system, root = fsspec.url_to_fs(address)
        system.invalidate_cache()  # another process may have written meanwhile
        yield system, root.rstrip("/")
    except LabError:
        raise
    except ImportError as error:
        raise LabError(f"{address}: {error}; install the extra of that store: lab-pipeline[s3], [gs] or [az]") from None
    except Exception as error:  # each store has errors of its own
        raise LabError(f"{address}: {type(error).__name__}: {error}; {_SECRET_FREE}") from error


def _digest_there(system: Any, name: str) -> str | None:
    if not system.exists(name):
        return None
    with system.open(name, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
