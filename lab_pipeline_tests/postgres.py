"""A PostgreSQL server on loopback, as a cluster's Dagster instance has; of Debian's package `postgresql`."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOTS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@contextmanager
def postgres() -> Iterator[dict[str, Any]]:
    """The section `storage` of a `dagster.yaml` that keeps everything in a fresh server; skips where none is installed."""
    if not ROOTS:
        pytest.skip("no PostgreSQL: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp())  # not pytest's own, which the user postgres may not enter
    as_postgres: list[str] = []
    if os.geteuid() == 0:  # the server refuses to run as root
        shutil.chown(folder, "postgres")
        as_postgres = ["runuser", "-u", "postgres", "--"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run(program: str, *arguments: str) -> None:
        command = [*as_postgres, str(ROOTS[-1] / program), "-D", str(folder / "data"), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")

    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    run("initdb", "--auth", "trust", "--username", "dagster")
    run("pg_ctl", "start", "--wait", "--log", str(folder / "log"), "--options", options)
    try:
        database = {"username": "dagster", "password": "", "hostname": "127.0.0.1", "db_name": "postgres", "port": port}
        yield {"postgres": {"postgres_db": database}}
    finally:
        run("pg_ctl", "stop", "--mode", "immediate")
        shutil.rmtree(folder)
